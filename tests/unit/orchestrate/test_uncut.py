"""What is told of users in a click log comes from rows before a cut, or the step refuses."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from llmers_pipelines.config import Method, Settings
from llmers_pipelines.data.registry import find_dataset
from llmers_pipelines.orchestrate.applicable import applicable, uncut
from llmers_pipelines.orchestrate.build import Plan, build_plan
from llmers_pipelines.orchestrate.context import StepError
from llmers_pipelines.orchestrate.steps import derive, generate
from llmers_pipelines.plan import Derive, Generate, Table
from llmers_pipelines.testing.contract import contract_data
from llmers_pipelines.tuning import TuneSettings

ML100K = find_dataset("ml100k")


def plan_of(slug: str, **settings) -> Plan:
    tune = TuneSettings(model="/a/model" if slug == "bahe" else "")
    return build_plan(Settings(methods=(Method(slug, settings=settings),), encoder="minilm",
                               tune=tune))  # fmt: skip


@pytest.mark.parametrize("tuned", [False, True])
def test_behaviours_of_a_split_without_a_cut_are_refused(tuned: bool) -> None:
    plan = plan_of("bahe", protocol="ctr", tuned=tuned)
    _, left = applicable(plan, list(plan.nodes), ML100K)
    (why,) = [v for k, v in left.items() if k.startswith("bahe")]
    assert "'ctr'" in why and "[splits.ctr]" in why and "history = 30" in why
    assert "protocol = 'ctr_time'" in why
    ctx = SimpleNamespace(description=ML100K)
    told = [n for n in plan.nodes if isinstance(n, Derive)]
    assert told
    for node in told:
        with pytest.raises(StepError, match=r"no cut; give \[splits.ctr\]"):
            derive.run(node, ctx)


@pytest.mark.parametrize("slug", ["bahe", "llm4msr", "flip", "deepfm"])
def test_methods_run_where_they_run_by_default(slug: str) -> None:
    """By default those that tell users take a split with a cut; rows of FLIP tell earlier ones."""
    plan = plan_of(slug)
    assert applicable(plan, list(plan.nodes), ML100K)[1] == {}
    if slug in ("bahe", "llm4msr"):
        assert uncut(plan.methods[0].train, ML100K) == ""


def asked_by(engine: str, slug: str, monkeypatch, description=ML100K, **settings):
    """Return the flags of the answers about users."""
    plan = plan_of(slug, **settings)
    node = next(
        n
        for n in plan.nodes
        if isinstance(n, Generate) and n.task.entity == "user" and n.llm != "template"
    )
    engines = []
    monkeypatch.setattr(
        "llmers_pipelines.llm.factory.make_engine", lambda s, **_: engines.append(s.engine)
    )
    monkeypatch.setattr("llmers_pipelines.data.recorded.recorded_file", lambda *_: object())
    ctx = SimpleNamespace(
        description=description,
        dataset=description.name,
        settings=Settings(engine=engine, model="m"),
    )
    task = next(n.task for n in node.context if isinstance(n, Table) and n.table == "splits")
    log = contract_data("multi_scenario" if slug == "llm4msr" else "ctr")
    spec = description.splits[task]
    log = dataclasses.replace(log, info={"split": task, "options": spec.options()})
    flags = generate._engine(node, ctx, log)[1]
    return engines, flags


def test_a_model_is_not_asked_about_rows_whose_labels_are_learned(monkeypatch) -> None:
    with pytest.raises(StepError, match=r"history = 30, or choose one.*ctr_time"):
        asked_by("hf", "kar", monkeypatch)
    assert asked_by("hf", "kar", monkeypatch, protocol="ctr_time") == (["hf"], ())
    assert asked_by("hf", "llm4msr", monkeypatch) == (["hf"], ())
    split = dataclasses.replace(ML100K.splits["multi_scenario"], history=0)
    bare = dataclasses.replace(ML100K, splits={"multi_scenario": split})
    with pytest.raises(StepError, match=r"give \[splits.multi_scenario\] one, history = 30$"):
        asked_by("hf", "llm4msr", monkeypatch, bare)


def test_what_is_not_asked_carries_the_mark_of_labels(monkeypatch) -> None:
    """Recorded answers that say so stay, a template has seen the same; the gate refuses both."""
    assert asked_by("recorded", "kar", monkeypatch) == (["recorded"], ("labels_seen",))
    assert asked_by("template", "kar", monkeypatch) == (["template"], ("labels_seen",))
    assert asked_by("template", "kar", monkeypatch, protocol="ctr_time") == (["template"], ())
