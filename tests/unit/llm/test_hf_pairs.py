"""Pairs by the transformers engine: even a random model can only answer with listed numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmers_pipelines.llm.hf import HfEngine, HfSettings
from llmers_pipelines.llm.protocol import Sampling
from llmers_pipelines.llm.runner import run_task
from llmers_pipelines.prompts.liked_disliked import LikedDisliked
from llmers_pipelines.store.responses import ResponseStore


def test_a_model_answers_with_numbers_of_the_list_and_is_asked_once(
    tiny_lm: Path, tmp_path: Path
) -> None:
    pytest.importorskip("xgrammar")
    candidates = [{"item_id": f"b{n}", "title": f"sea {n}"} for n in range(4)]
    rows = [
        {"user_id": f"u{n}", "history": [{"title": "clock " * (n + 1)}], "candidates": candidates}
        for n in range(6)
    ]
    engine = HfEngine(HfSettings(str(tiny_lm), max_batch=3))
    store = ResponseStore(tmp_path)

    def run():
        return run_task(
            LikedDisliked(), rows, engine, store, progress=False, sampling=Sampling(max_tokens=40)
        )

    first = run()
    answered = [r for r in first.rows.to_pylist() if r["status"] in ("ok", "repaired")]
    for row in first.rows.to_pylist():
        # A random model may name one number twice; that is refused, never published.
        assert row["status"] in ("ok", "repaired") or "both liked and disliked" in row["reason"]
    assert answered
    for row in answered:
        (liked,), (disliked,) = row["liked"], row["disliked"]
        assert {liked, disliked} <= {c["item_id"] for c in candidates} and liked != disliked
    again = run()
    assert again.counts["llm_calls"] == 0 and again.rows.equals(first.rows)
