"""A check that was added after a version was stored warns; it never holds what is made from it."""

from __future__ import annotations

import dataclasses

import dagster as dg
import pytest
from shop import Shop

from llmers_pipelines.orchestrate import factories, publish
from llmers_pipelines.orchestrate import launch as launching
from llmers_pipelines.orchestrate.checks import checks_of
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
    plan, asset = own.plan(), model.split("/")[1]
    results = factories._results

    def broken(kinds, manifest, key):
        if key.path[-1] == asset and key.path[0] == "recommenders":
            raise OSError("the disk is gone")
        return results(kinds, manifest, key)

    monkeypatch.setattr(factories, "_results", broken)
    nodes = plan.select([model.replace("recommenders", "evaluations")])
    report = launching.launch(plan, list(nodes), "shop", own.settings(), force=True)
    row = next(a for a in report["assets"] if a["key"] == model)
    assert not report["success"] and "the disk is gone" in row["error"]


def test_checks_alone_report_what_the_stored_version_has(own: Shop, model: str) -> None:
    """Dagster's button "Execute" beside a check: nothing is made anew."""
    settings, plan = own.settings(), own.plan()
    before = own.manifest(model)
    asset = factories.asset_for(plan.node(model), plan, settings)
    keys = [dg.AssetCheckKey(asset.key, name) for name in ("padding", "weights_finite")]
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("dataset", ["shop"])
        run = dg.materialize(
            [asset], instance=instance, selection=dg.AssetSelection.checks(*keys),
            tags={"dagster/partition": "shop"},  # where no asset is selected, the tag alone tells
        )  # fmt: skip
    assert run.success and not run.asset_materializations_for_node(asset.op.name)
    told = run.get_asset_check_evaluations()
    assert {e.check_name for e in told} == {"padding", "weights_finite"}
    assert all(e.passed and e.partition == "shop" for e in told)
    assert own.manifest(model) == before


def test_checks_without_a_data_set_are_those_of_all(own: Shop, model: str) -> None:
    """Dagster's button "Execute all" names no partition."""
    settings, plan = own.settings(), own.plan()
    asset = factories.asset_for(plan.node(model), plan, settings)
    have = own.manifest(model)
    bad = tuple(dataclasses.replace(c, passed=c.name != "padding") for c in have.checks)
    own.context().manifests.write(dataclasses.replace(have, dataset="kiosk", checks=bad))
    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.materialize(
            [asset], instance=instance, selection=dg.AssetSelection.checks(asset),
            raise_on_error=False,
        )  # fmt: skip
    told = {e.check_name: e for e in run.get_asset_check_evaluations()}
    assert set(told) == {c.name for c in have.checks}
    padding, finite = told["padding"], told["weights_finite"]
    assert not run.success and not padding.passed and finite.passed  # padding is blocking
    assert padding.metadata["shop"].value == "passed"
    assert padding.metadata["kiosk"].value.startswith("failed")
    assert {v.value for v in finite.metadata.values()} == {"passed"}


def test_an_asset_and_its_checks_are_one_step(own: Shop, model: str) -> None:
    plan = own.plan()
    nodes = [plan.node(model)]
    events = dg.materialize(
        [factories.asset_for(n, plan, own.settings()) for n in nodes], partition_key="shop",
        instance=open_instance(own.settings()),
    )  # fmt: skip
    assert {e.step_key for e in events.all_events if e.step_key} == {model.replace("/", "__")}
    told = [e.check_name for e in events.get_asset_check_evaluations()]
    assert told == [c.name for c in checks_of(nodes[0])]
