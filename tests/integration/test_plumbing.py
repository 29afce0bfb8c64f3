"""The plumbing table: a tiny model does the work of a large one, and nothing is claimed of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from shop import SMALL, TINY, Shop, same_environment

from llmers_pipelines.config import ConfigError
from llmers_pipelines.orchestrate.build import build_plan
from llmers_pipelines.orchestrate.context import StepContext
from llmers_pipelines.orchestrate.plumbing import make_tiny, with_tiny_model
from llmers_pipelines.orchestrate.publish import materialize
from llmers_pipelines.orchestrate.results import load_experiments, run_experiment, write_results
from llmers_pipelines.orchestrate.steps.generate import engine_for
from llmers_pipelines.plan import Generate, Table

MASKED = f"""
[[experiment]]
name = "shop, tiny masked model"
dataset = "shop"
controls = []
encoder = "tiny_masked"
plumbing = true
[[experiment.methods]]
recipe = "flip"
backbone = "deepfm"
settings = {{ epochs = 1, batch = 64, lr = 0.003, last = 1, protocol = "ctr" }}
backbone_settings = {TINY}
"""
LIST = f"""
[[experiment]]
name = "shop, tiny encoder"
dataset = "shop"
controls = []
encoder = "tiny"
plumbing = true
[[experiment.methods]]
recipe = "llmemb"
settings = {{ pca = 8, epochs = 2 }}
backbone_settings = {SMALL}
"""


@pytest.mark.parametrize(
    ("toml", "method", "tuned", "primary"),
    [(LIST, "LLMEmb", "24 examples", "ndcg@10"),
     (MASKED, "FLIP", "168 examples", "auc")],
    ids=["causal", "masked"],
)  # fmt: skip
def test_a_row_without_a_claim(
    tmp_path: Path, toml: str, method: str, tuned: str, primary: str
) -> None:
    shop = Shop.open(tmp_path / "home")
    listed = tmp_path / "list.toml"
    listed.write_text(toml)
    (experiment,) = load_experiments(listed)
    out, base = tmp_path / "results.md", shop.settings()
    with same_environment():
        assert write_results([experiment], base, "llmers results", out) == {}
        assert "not run yet" in out.read_text()
        failed = run_experiment(experiment, base, lambda *a: None)
        assert failed == [], [f"{r['key']}: {r.get('error', r['status'])}" for r in failed]
        assert write_results([experiment], base, "llmers results", out) == {}
    text = out.read_text()
    assert "## Plumbing" in text and "no row claims a lift" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| shop, tiny")]
    cells = [c.strip() for c in row.split("|")[1:-1]]
    assert cells[1] == method and cells[3] == tuned and cells[10] == primary
    assert "claimed" not in row and float(cells[12]) >= 0


def test_a_misspelt_flag_is_named(tmp_path: Path) -> None:
    listed = tmp_path / "list.toml"
    listed.write_text(LIST.replace("plumbing", "plumming"))
    with pytest.raises(ConfigError, match="shop, tiny encoder"):
        load_experiments(listed)


def test_the_model_is_asked_where_nothing_is_recorded(tmp_path: Path) -> None:
    shop = Shop.open(tmp_path / "home")
    with same_environment():
        asked = with_tiny_model(shop.settings(), answers=True)
        assert asked.engine == "hf" and asked.recorded_first and asked.model == asked.tune.model
        plan = build_plan(asked)
        make_tiny(plan, asked)
        ctx = StepContext(asked, "shop")
        for node in plan.nodes:
            if isinstance(node, Table):
                materialize(node, ctx)
        kinds, notes = {}, {}
        for node in (n for n in plan.nodes if isinstance(n, Generate) and not n.llm):
            engine, _, notes[node.slug] = engine_for(node, ctx)
            kinds[node.slug] = engine.info.kind
    assert kinds == {"item_summary": "recorded", "item_knowledge": "hf",
                     "user_preference": "recorded"}  # fmt: skip
    assert set(notes.values()) == {""}
    other = dataclasses.replace(asked, recorded_first=False)
    assert other.engine_identity != asked.engine_identity
    node = next(n for n in build_plan(other).nodes if n.slug == "item_summary")
    assert engine_for(node, StepContext(other, "shop"))[0].info.kind == "hf"


def test_answers_are_those_of_the_tiny_model_alone(tmp_path: Path) -> None:
    listed = tmp_path / "list.toml"
    for wrong in ('answers = "large"\nplumbing = true', 'answers = "tiny"\nplumbing = false'):
        listed.write_text(LIST.replace("plumbing = true", wrong))
        with pytest.raises(ConfigError, match="answers ="):
            load_experiments(listed)
