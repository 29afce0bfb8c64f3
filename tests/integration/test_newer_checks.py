"""A check that was added after a version was stored warns; it never holds what is made from it."""

from __future__ import annotations

import dataclasses

import dagster as dg
import pytest
from shop import Shop

from llmers_pipelines.orchestrate import launch as launching
from llmers_pipelines.orchestrate import publish
from llmers_pipelines.orchestrate.context import StepError
from llmers_pipelines.orchestrate.home import open_instance


@pytest.fixture
def model(own: Shop) -> str:
    return next(m.train.name for m in own.plan().methods if m.recipe.slug == "sasrec")


def without(own: Shop, name: str, check: str) -> None:
    have = own.manifest(name)
    assert check in {c.name for c in have.checks}
    kept = tuple(c for c in have.checks if c.name != check)
    own.context().manifests.write(dataclasses.replace(have, checks=kept))


def test_a_version_that_is_older_than_a_check_is_used_with_a_warning(own: Shop, model: str) -> None:
    without(own, model, "padding")
    evaluation = model.replace("recommenders", "evaluations")
    have = own.manifest(evaluation)
    own.context().manifests.write(dataclasses.replace(have, code_version="older"))
    report = own.ask("run", evaluation)
    rows = {a["key"]: a["status"] for a in report["assets"]}
    assert rows[model] == "reused" and rows[evaluation] == "materialized"
    instance = open_instance(own.settings())
    try:
        key = dg.AssetCheckKey(dg.AssetKey(model.split("/")), "padding")
        found = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    finally:
        instance.dispose()
    told = found.event.dagster_event.event_specific_data
    assert not told.passed and told.severity == dg.AssetCheckSeverity.WARN
    assert f"llmers run {model} --force" in str(told.metadata["why"].value)


def test_a_step_that_leaves_a_blocking_check_out_publishes_nothing(
    own: Shop, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, ctx = own.plan(), own.context()
    node = plan.node(model)
    before = own.manifest(model)
    run = publish.run_verb

    def forgetful(*args):
        outcome = run(*args)
        left = tuple(c for c in outcome.checks if c.name != "weights_finite")
        return dataclasses.replace(outcome, checks=left)

    monkeypatch.setattr(publish, "run_verb", forgetful)
    with pytest.raises(StepError, match="reported no weights_finite"):
        publish.materialize(node, ctx, force=True)
    assert own.manifest(model) == before


def test_checks_that_cannot_be_reported_are_told_with_their_asset(
    own: Shop, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything behind is skipped then; a report without a reason would help nobody."""
    plan = own.plan()
    checks_for = launching.checks_for

    def broken(node, settings):
        if node.name != model:
            return checks_for(node, settings)
        spec = dg.AssetCheckSpec("padding", asset=dg.AssetKey(model.split("/")), blocking=True)

        @dg.multi_asset_check(name=f"checks__{'__'.join(node.key)}", specs=[spec])
        def check():
            raise OSError("the disk is gone")
            yield

        return check

    monkeypatch.setattr(launching, "checks_for", broken)
    nodes = plan.select([model.replace("recommenders", "evaluations")])
    report = launching.launch(plan, list(nodes), "shop", own.settings(), force=True)
    row = next(a for a in report["assets"] if a["key"] == model)
    assert not report["success"] and "the disk is gone" in row["error"]
