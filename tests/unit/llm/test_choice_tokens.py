"""Tokens of choices: what a plan counts is what the engine reads."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from llmers_pipelines.config import Settings
from llmers_pipelines.llm.choosing import choose_all, missing_choices
from llmers_pipelines.llm.hf import HfEngine, HfSettings
from llmers_pipelines.llm.history import costs
from llmers_pipelines.llm.protocol import ChoiceRequest
from llmers_pipelines.orchestrate import choices
from llmers_pipelines.store.responses import ResponseStore


def asked(rows: int) -> list[ChoiceRequest]:
    return [
        ChoiceRequest(f"u{n}", ({"role": "user", "content": f"what follows {'on ' * n}?"},),
                      tuple(f"Salt Road {n + k} at night" for k in range(4 + n % 3)))
        for n in range(rows)
    ]  # fmt: skip


@pytest.mark.parametrize("batch_tokens", [8192, 64])
def test_the_plan_counts_what_a_real_engine_reads(tiny_lm, tmp_path, monkeypatch, batch_tokens):
    from llmers_pipelines.llm import hf_score

    requests = asked(6)
    store = ResponseStore(tmp_path / "store")
    engine = HfEngine(HfSettings(str(tiny_lm), device="cpu", batch_tokens=batch_tokens))
    settings = Settings(home=tmp_path, engine="hf", model=str(tiny_lm), batch_tokens=batch_tokens)
    ctx: Any = SimpleNamespace(settings=settings)
    figure, passes = choices._read(requests, ctx, engine.info, store)
    ran = [0]
    chunk = hf_score._chunk

    def counted(*args: Any) -> Any:
        ran[0] += 1
        return chunk(*args)

    monkeypatch.setattr(hf_score, "_chunk", counted)
    found = choose_all(requests, engine, store, task="t", revision="r", progress=False)
    assert found.counts["tokens_in"] == figure.value > 0 and figure.source == "rendered"
    assert passes == ran[0] + len(requests), "each prompt once, its candidates in batches"
    assert missing_choices(requests, engine.info, store) == ([], 6)
    assert store.stats()["tokens_in"] == figure.value
    assert costs(store, identity=engine.info.identity) == [], "scores tell nothing of answers"
