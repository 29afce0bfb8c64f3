"""Two variants of a method in one plan: each asks for itself, and is read by its own."""

from __future__ import annotations

import zlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from graph_shop import METHODS, Reader, opened
from shop import made

from llmers_pipelines.llm import factory
from llmers_pipelines.llm.protocol import GenRequest
from llmers_pipelines.plan import Embed

ENGINE = 'engine = "hf"\nmodel = "a-model"'
KEY = "user_profiles/rewrite_user"


class Echo(Reader):
    """A scripted model whose answer tells which question it was given."""

    def _text(self, request: GenRequest, attempt: int) -> str:
        asked = str(request.messages[-1]["content"])
        return f"{super()._text(request, attempt)} Told {zlib.crc32(asked.encode())}."


def test_each_variant_reads_its_own_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Echo()
    monkeypatch.setattr(factory, "make_engine", lambda *a, **k: engine)
    monkeypatch.setattr(factory, "engine_info", lambda *a, **k: engine.info)
    shop = opened(tmp_path / "home", "gacllm", llm=ENGINE)
    alone = shop.plan()
    toml = shop.home / "llmers.toml"
    both = METHODS["gacllm"].replace("neighbours = 3", "neighbours = 1")
    toml.write_text(toml.read_text() + both)
    plan = shop.plan()
    assert {n.name for n in alone.nodes} <= {n.name for n in plan.nodes}
    first, second = (
        n for n in plan.nodes if n.verb == "generate" and n.name.startswith(KEY) and not n.llm
        and "round2" not in n.name
    )  # fmt: skip
    assert first.name == KEY and second.name == f"{KEY}__{second.mark}"
    vectors = [n for n in plan.nodes if isinstance(n, Embed) and n.over in (first, second)]
    assert len(vectors) == 2
    shop.work(*(n.name for n in vectors))

    ctx = shop.context()
    told = [dict(zip(t["user_id"].to_pylist(), t["text"].to_pylist(), strict=True))
            for t in (ctx.load(first), ctx.load(second))]  # fmt: skip
    assert told[0].keys() == told[1].keys()
    other = [i for i, text in told[0].items() if told[1][i] != text]
    assert len(other) == len(told[0])  # one neighbour, or three
    own = [n.name for n in second.inputs if "neighbourhood" in n.name]
    assert own and all("neighbourhood__n1__" in name for name in own)
    assert set(own) <= shop.manifest(second.name).inputs.keys()
    assert not set(own) & shop.manifest(first.name).inputs.keys()
    for node, texts in zip(vectors, told, strict=True):
        read = pq.read_table(ctx.manifests.path(ctx.manifest(node)) / "texts.parquet").to_pylist()
        assert {row["user_id"]: row["text"] for row in read} == texts

    asked = len(engine.asked)
    assert made(shop.work(*(n.name for n in vectors))) == set() and len(engine.asked) == asked
    row = other[0]
    shown = shop.invoke("trace", second.name, row)
    assert shown.exit_code == 0 and told[1][row] in shown.output, shown.output
    preview = shop.ask("prompts", "preview", second.name, "--id", row)
    assert preview["asset"] == second.name and preview != shop.ask(
        "prompts", "preview", first.name, "--id", row
    )
    several = shop.invoke("prompts", "preview", "rewrite_user", "--id", row)
    assert f"give the key of one: {first.name}, " in f"{several.exception}{several.stderr}"
