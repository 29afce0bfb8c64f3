"""`llmers prompts memory`: asked once, kept, and refused where no language model is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shop import BOOKS, SMALL, Shop, same_environment, title

from llmers_pipelines.data.leakage import MEMORISED
from llmers_pipelines.llm import factory
from llmers_pipelines.llm.fake import FakeEngine
from llmers_pipelines.orchestrate.memorised import remembering
from llmers_pipelines.orchestrate.publish import stale_because

CHOICE = """
[llmers]
dataset = "shop"
[llm]
engine = "hf"
model = "a-model"
[[methods]]
recipe = "sasrec"
"""


def test_a_model_that_knows_the_titles_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop.open(tmp_path / "home")
    (shop.home / "llmers.toml").write_text(CHOICE)
    known = {f"title:b{i:02}": title(i) for i in range(1, BOOKS + 1)}
    engine = FakeEngine({**known, **{f"next:u{u:02}": "b01" for u in range(1, 41)}})
    monkeypatch.setattr(factory, "make_engine", lambda *a, **k: engine)
    assert shop.ask("prompts", "memory") is None
    told = shop.ask("prompts", "memory", "--ask", "--count", "20")
    kinds = {r["kind"]: r for r in told["kinds"]}
    assert kinds["title"]["share"] == 1.0 and kinds["title"]["known"]
    assert not kinds["next"]["known"] and told["known"]
    assert told["llm_calls"] == len(engine.asked) == 20 + 20
    again = shop.ask("prompts", "memory", "--ask", "--count", "20")
    assert again["llm_calls"] == 0 and len(engine.asked) == 40
    assert again["kinds"] == told["kinds"] == shop.ask("prompts", "memory")["kinds"]
    shown = shop.invoke("prompts", "memory")
    assert "the title of an item id" in shown.output and "on another one" in shown.output


READS = """
[encoder]
name = "tfidf?dim=8"
[evaluation]
controls = []
[[methods]]
recipe = "llm2x"
settings = { source = "summary" }
backbone_settings = SMALL
""".replace("SMALL", SMALL)


def test_who_reads_a_model_that_knows_the_data_set_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop.open(tmp_path / "home")
    (shop.home / "llmers.toml").write_text(
        CHOICE.replace('recipe = "sasrec"', f'recipe = "sasrec"\nbackbone_settings = {SMALL}')
        + READS
    )
    known = {f"title:b{i:02}": title(i) for i in range(1, BOOKS + 1)}
    known |= {f"next:u{u:02}": "unknown" for u in range(1, 41)}
    engine = FakeEngine(known, model="a-model")
    monkeypatch.setattr(factory, "make_engine", lambda *a, **k: engine)
    monkeypatch.setattr(factory, "engine_info", lambda *a, **k: engine.info)
    named = {m.recipe.slug: m.evaluate.name for m in shop.plan().methods}
    method, base = named["llm2x"], named["sasrec"]
    shop.work(method, base)
    before = shop.manifest(method)
    assert before.flags == () and MEMORISED not in before.sources, "nobody asked"

    plan, ctx = shop.plan(), shop.context()
    assert not any(stale_because(n, ctx) for n in (plan.node(method), plan.node(base)))
    assert shop.ask("prompts", "memory", "--ask", "--count", "20")["known"]
    assert stale_because(plan.node(method), ctx) == f"source changed: {MEMORISED}"
    assert stale_because(plan.node(base), ctx) == "", "its model reads no answer"
    done = shop.work(method, base)
    assert [n for n, status in done.items() if status == "materialized"] == [method]
    after = shop.manifest(method)
    assert after.flags == (MEMORISED,) and shop.manifest(base).flags == ()
    folder = ctx.manifests.path(after)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["verdict"] != "claimed" and summary["flags"] == [MEMORISED]
    assert "the results are marked 'memorised'" in summary["reasons"]
    report = (folder / "report.md").read_text()
    assert "*memorised*" in report and "a-model knows records of this data set" in report

    (probe,) = (ctx.settings.data / "memory_probes" / "shop").glob("*.json")
    told = json.loads(probe.read_text())
    assert remembering(plan.node(method).model, ctx) == ("a-model",)
    for other in ({"known": False}, {"model": "b", "identity": "b"}):
        probe.write_text(json.dumps({**told, **other}))
        assert remembering(plan.node(method).model, ctx) == ()


def test_without_a_model_nothing_is_probed(tmp_path: Path) -> None:
    shop = Shop.open(tmp_path / "home")
    with same_environment():
        result = shop.invoke("prompts", "memory", "--ask")
    assert result.exit_code != 0
    assert "a memory is a language model's" in result.stderr + str(result.exception)
