"""What Dagster and MLflow know of the shop's run: versions, checks, columns, lineage, trainings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from shop import Shop

from llmers_pipelines.orchestrate.assemble import build_definitions
from llmers_pipelines.orchestrate.checks import checks_of
from llmers_pipelines.orchestrate.home import open_instance
from llmers_pipelines.registry.mlflow_store import MlflowStore, model_name


@pytest.fixture
def instance(shop: Shop) -> Iterator[dg.DagsterInstance]:
    opened = open_instance(shop.settings())
    yield opened
    opened.dispose()


def metadata(instance: dg.DagsterInstance, name: str) -> dict[str, Any]:
    event = instance.get_latest_materialization_event(dg.AssetKey(name.split("/")))
    assert event is not None and event.asset_materialization is not None
    assert event.asset_materialization.partition == "shop"
    return {k: v.value for k, v in event.asset_materialization.metadata.items()}


def test_data_sets_are_partitions(instance: dg.DagsterInstance) -> None:
    assert {"shop", "sample"} <= set(instance.get_dynamic_partitions("dataset"))


def test_events_carry_the_versions_of_the_manifests(
    shop: Shop, instance: dg.DagsterInstance
) -> None:
    for node in shop.plan().nodes:
        key = dg.AssetKey(list(node.key))
        record = instance.get_latest_data_version_record(key, partition_key="shop")
        assert record is not None
        tags = record.asset_materialization.tags
        assert tags["dagster/data_version"] == shop.manifest(node.name).data_version
        assert tags["dagster/code_version"] == node.code_version


def test_every_check_was_reported(shop: Shop, instance: dg.DagsterInstance) -> None:
    nodes = shop.plan().nodes
    keys = [dg.AssetCheckKey(dg.AssetKey(list(n.key)), c.name) for n in nodes for c in checks_of(n)]
    stored = instance.event_log_storage
    for key in keys:
        # A run that was refused before it began has planned the check and not evaluated it.
        records = stored.get_asset_check_execution_history(key, limit=10)
        told = (r.event.dagster_event.event_specific_data for r in records if r.event)
        evaluation = next(e for e in told if isinstance(e, dg.AssetCheckEvaluation))
        checks = shop.manifest("/".join(key.asset_key.path)).checks
        assert evaluation.passed == next(c.passed for c in checks if c.name == key.name)
        assert evaluation.passed or not evaluation.blocking


def test_columns_and_where_each_comes_from(shop: Shop, instance: dg.DagsterInstance) -> None:
    names = [n.name for n in shop.plan().nodes]
    about = {name: metadata(instance, name) for name in names}
    columns = {
        name: {c.name for c in told["dagster/column_schema"].columns}
        for name, told in about.items() if "dagster/column_schema" in told
    }  # fmt: skip
    told_of = {n.split("/")[0] for n in columns}
    assert told_of >= {"catalog", "item_summaries", "user_profiles", "llm_embeddings", "features"}
    traced = 0
    for name, told in about.items():
        assert ("dagster/row_count" in told) == (name in columns)
        assert told.get("dagster/row_count", 1) > 0 and told["status"] in ("materialized", "reused")
        assert "| code and settings |" in told["made_from"]
        lineage = told.get("dagster/column_lineage")
        for column, sources in (lineage.deps_by_column if lineage else {}).items():
            assert column in columns[name]
            for source in sources:
                asset = "/".join(source.asset_key.path)
                assert source.column_name in columns[asset], f"{name}.{column}: {asset}"
                traced += 1
    assert traced > 50
    vector = about["llm_embeddings/item_text"]["dagster/column_lineage"].deps_by_column["vector"]
    assert {c.column_name for c in vector} == {"item_id", "title", "kind", "description"}
    assert about["user_profiles/user_preference"]["flags"] == "labels_seen"
    assert "intervals" in about[next(n for n in names if n.startswith("evaluations/llm2x"))]["plot"]


def test_a_job_of_the_code_location_reuses_what_is_there(
    shop: Shop, instance: dg.DagsterInstance
) -> None:
    job = build_definitions(shop.settings()).resolve_job_def("method__knnblend")
    result = job.execute_in_process(partition_key="shop", instance=instance)
    assert result.success
    done = [e.materialization.metadata["status"].value for e in result.all_events
            if e.is_step_materialization]  # fmt: skip
    assert len(done) >= 6 and set(done) == {"reused"}


def test_every_training_is_a_run_with_settings_curves_and_data_versions(shop: Shop) -> None:
    client = MlflowStore.from_settings(shop.settings()).client()
    names = [model_name("shop", task) for task in ("sequential", "ctr")]
    experiments = [client.get_experiment_by_name(n).experiment_id for n in names]
    runs = {r.info.run_id: r for r in client.search_runs(experiments, max_results=500)}
    cells = [json.loads(p.read_text())
             for p in (shop.home / "data/llmers/cells/shop").glob("*/cell.json")]  # fmt: skip
    assert cells and {c["mlflow_run"] for c in cells} == set(runs)
    for cell in cells:
        run = runs[cell["mlflow_run"]]
        assert run.info.status == "FINISHED"
        assert run.data.params["arm"] == cell["arm"] and run.data.params["seed"] == "0"
        assert run.data.metrics["best_valid"] == pytest.approx(cell["best_valid"])
        assert run.data.tags["dataset"] == "shop" and run.data.tags["dagster.run_id"]
        assert run.data.tags["dagster.asset_key"].startswith("recommenders/")
        assert any(name.startswith("data.catalog/splits__") for name in run.data.params)
    small = next(c for c in cells if c["model"].startswith("llm2x") and c["arm"] == "main")
    run = runs[small["mlflow_run"]]
    assert run.data.params["backbone.kind"] == "SASRec" and run.data.params["backbone.dim"] == "8"
    assert run.data.params["part1.kind"] == "FromVectors"
    assert len(client.get_metric_history(run.info.run_id, "train_loss")) == small["epochs"]
    assert {c["arm"] for c in cells} == {"main", "permuted"}


def test_the_alias_follows_the_gate(shop: Shop) -> None:
    client = MlflowStore.from_settings(shop.settings()).client()
    for task, model in (("sequential", "knnblend"), ("ctr", "deepfm")):
        name = model_name("shop", task)
        version = client.get_model_version_by_alias(name, "champion")
        manifest = shop.manifest(f"registry/champion__{task}")
        assert manifest.info["champion"] == str(version.version)
        assert shop.manifest(f"registry/{model}").info["version"] == str(version.version)
        assert version.tags["gate"] == "promoted" and json.loads(version.tags["gate.reasons"])
        assert {str(v.version) for v in client.search_model_versions(f"name = '{name}'")} == {
            v["version"] for v in manifest.info["verdicts"]
        }
