"""What is served follows the weights and the data, and the gate judges a refresh like any other."""

from __future__ import annotations

import dataclasses
import json

import pyarrow.parquet as pq
from shop import Shop

from llmers_pipelines.orchestrate.publish import stale_because
from llmers_pipelines.orchestrate.steps.champion import _opponent, run
from llmers_pipelines.registry.mlflow_store import MlflowStore, model_name


def test_other_weights_are_registered_anew_though_the_metrics_are_equal(own: Shop) -> None:
    ctx = own.context()
    register = next(m.register for m in own.plan().methods if m.recipe.slug == "llm2x")
    assert stale_because(register, ctx) == ""
    for node in (register.evaluation.model, register.evaluation.model.log):
        have = ctx.manifests.current(ctx.dataset, node.name)
        assert have is not None
        ctx.manifests.write(dataclasses.replace(have, data_version="another"))
        assert "source changed" in stale_because(register, own.context())
        ctx.manifests.write(have)
    assert stale_because(register, own.context()) == ""


def test_a_refresh_on_equal_rows_is_held_against_the_version_that_serves(own: Shop) -> None:
    ctx = own.context()
    store = MlflowStore.from_settings(own.settings())
    name = model_name(ctx.dataset, "sequential")
    version = store.champion_version(name)
    assert version is not None
    asset = store.client().get_model_version(name, version).tags["asset"]
    served = ctx.manifests.current(ctx.dataset, asset)
    assert served is not None
    table = pq.read_table(ctx.manifests.path(served) / "valid.parquet")
    against = _opponent(version, {"asset": asset, "table": table}, store, name, ctx)
    assert against.table is not None and against.table.equals(table) and not against.note
    assert against.refresh  # the same settings; what they are made from may be newer
    changed = {"asset": asset, "table": table.slice(1)}
    against = _opponent(version, changed, store, name, ctx)
    assert against.table is None and "the data changed" in against.note and against.refresh
    other = next(t.name for m in own.plan().methods if (t := m.train).name != asset)
    assert not _opponent(version, {"asset": other, "table": table}, store, name, ctx).refresh
    ctx.manifests.write(dataclasses.replace(served, digest="other settings"))
    try:
        assert not _opponent(version, {"asset": asset, "table": table}, store, name, ctx).refresh
    finally:
        ctx.manifests.write(served)


def test_a_champion_whose_result_is_marked_later_is_followed_by_one_that_passes(own: Shop) -> None:
    ctx = own.context()
    store = MlflowStore.from_settings(own.settings())
    name = model_name(ctx.dataset, "sequential")
    before = store.champion_version(name)
    assert before is not None
    champion = next(n for n in own.plan().champions if n.task == "sequential")
    weaker = next(v for v in run(champion, ctx).info["verdicts"] if v["version"] != before)
    key = weaker["asset"].replace("recommenders/", "evaluations/")
    evaluation = ctx.manifests.current(ctx.dataset, key)
    assert evaluation is not None
    ctx.manifests.write(dataclasses.replace(evaluation, flags=("contaminated",)))
    store.set_champion(name, weaker["version"])
    try:
        verdicts = run(champion, own.context()).info["verdicts"]
        marked = next(v for v in verdicts if v["version"] == weaker["version"])
        assert not marked["promoted"]
        promoted = next(v for v in verdicts if v["promoted"])
        assert promoted["version"] == before == store.champion_version(name)
        assert promoted["reasons"][-1].endswith("is marked contaminated and no measure")
        assert "there is no champion yet" not in promoted["reasons"]
    finally:
        ctx.manifests.write(evaluation)
        store.set_champion(name, before)


def test_a_marked_model_below_the_champion_is_refused_for_its_mark_and_tagged(own: Shop) -> None:
    ctx = own.context()
    store = MlflowStore.from_settings(own.settings())
    name = model_name(ctx.dataset, "sequential")
    before = store.champion_version(name)
    champion = next(n for n in own.plan().champions if n.task == "sequential")
    weaker = run(champion, ctx).info["verdicts"][-1]
    assert weaker["version"] != before
    evaluation = ctx.manifests.current(
        ctx.dataset, weaker["asset"].replace("recommenders/", "evaluations/")
    )
    assert evaluation is not None
    for flags in (("contaminated", "valid_seen"), ()):
        ctx.manifests.write(dataclasses.replace(evaluation, flags=flags))
        verdicts = run(champion, own.context()).info["verdicts"]
        for verdict in verdicts:
            tags = store.client().get_model_version(name, verdict["version"]).tags
            if verdict["version"] == before:
                assert verdict["stands"] and tags["gate"] == "promoted"
                continue
            assert tags["gate"] == "refused"
            assert json.loads(tags["gate.reasons"]) == verdict["reasons"]
        reasons = verdicts[-1]["reasons"]
        assert [r.split(":")[0] for r in reasons[:-1]] == [f"marked {f}" for f in flags]
        assert reasons[-1].endswith("has the higher validation metric")
        assert store.champion_version(name) == before
