"""Tables beside the log as nodes: published, marked, and asked for only where they are declared."""

from __future__ import annotations

from types import SimpleNamespace

import pyarrow as pa
import pytest

from llmers_pipelines.api import knowledge, knowledge_links
from llmers_pipelines.config import Method, Settings
from llmers_pipelines.data.registry import find_dataset
from llmers_pipelines.orchestrate.applicable import applicable
from llmers_pipelines.orchestrate.build import build_plan
from llmers_pipelines.orchestrate.context import StepError
from llmers_pipelines.orchestrate.describe import describe
from llmers_pipelines.orchestrate.steps import table as step
from llmers_pipelines.plan import PlanError

KG = pa.table({"head_id": ["e1"], "relation": ["r"], "tail_id": ["e2"]})


def context(monkeypatch, extras, **source):
    given = {"labels_seen": False, "data_cutoff": "none", "path": "kg.parquet"} | source
    beside = {name: SimpleNamespace(**given) for name in extras}
    description = SimpleNamespace(
        items=None, users=None, interactions=None, sources=beside, file="shop.toml",
        quarantine_share=0.01,
    )
    catalog = SimpleNamespace(
        extras=extras, info={"records_read": {}},
        quarantine=pa.table({n: pa.array([], pa.string()) for n in ("table", "reason", "action")}),
    )  # fmt: skip
    monkeypatch.setattr(step, "_load", lambda ctx: catalog)
    return SimpleNamespace(dataset="shop", description=description)


def test_a_table_beside_the_log_is_published_with_its_rows(monkeypatch, tmp_path):
    outcome = step.run(knowledge, context(monkeypatch, {"kg": KG}))
    assert outcome.keep.equals(KG) and outcome.rows == 1 and outcome.flags == ()
    assert all(c.passed for c in outcome.checks)
    outcome.save(tmp_path)
    assert (tmp_path / "rows.parquet").is_file()


@pytest.mark.parametrize(
    ("source", "flags"),
    [
        ({"data_cutoff": "unknown"}, ("contaminated",)),
        ({"labels_seen": True}, ("labels_seen",)),
        ({"data_cutoff": "all", "labels_seen": True}, ("labels_seen", "contaminated")),
    ],
)
def test_what_its_author_may_have_seen_marks_everything_downstream(monkeypatch, source, flags):
    assert step.run(knowledge, context(monkeypatch, {"kg": KG}, **source)).flags == flags


def test_a_table_that_is_not_declared_is_asked_for_by_name(monkeypatch):
    with pytest.raises(StepError, match=r"declares no table 'kg_link'; add \[kg_link\].*shop.toml"):
        step.run(knowledge_links, context(monkeypatch, {"kg": KG}))


def test_methods_over_facts_run_where_a_data_set_declares_them():
    plan = build_plan(Settings(methods=(Method("cke"), Method("sasrec")), encoder="tfidf"))
    there, left = applicable(plan, plan.select(["cke"]), find_dataset("ml100k"))
    assert all(describe(node, plan) for node in there)
    assert not left and {"catalog/kg", "catalog/kg_link"} <= {n.name for n in there}
    _, left = applicable(plan, plan.select(["cke", "sasrec"]), find_dataset("amazon_office"))
    assert left == {"cke": "data set 'amazon_office' declares no table 'kg'"}


def test_a_backbone_with_tables_of_its_own_is_chosen_by_its_recipe_alone():
    with pytest.raises(PlanError, match=r"\[llm_init\]: cke is for the recipe that names its"):
        build_plan(Settings(methods=(Method("llm_init", "cke"),), encoder="tfidf"))
