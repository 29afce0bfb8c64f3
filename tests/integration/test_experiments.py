"""Run configs: what lies outside of the digest applies, what lies inside is an experiment."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
from launched import messages, name_of, observations, op, run
from shop import CTR, SEQUENTIAL, Shop

from llmers_pipelines.orchestrate.assemble import build_definitions
from llmers_pipelines.orchestrate.events import EXPERIMENT_TAG
from llmers_pipelines.orchestrate.home import open_instance
from llmers_pipelines.registry.mlflow_store import MlflowStore


def test_an_experiment_is_tracked_and_publishes_nothing(own: Shop) -> None:
    train = name_of(own, "recommenders", SEQUENTIAL)
    evaluate = train.replace("recommenders/", "evaluations/")
    before, gate = own.manifest(train), own.manifest("registry/champion__sequential")
    wanted = {"epochs": 3, "lr": 0.02, "seed": 7, "backbone": {"dropout": 0.1}}
    result = run(own, {"experiment": wanted}, train, evaluate)
    assert result.success
    assert [e for e in result.all_events if e.is_step_materialization] == []
    assert any(e.is_step_skipped and e.step_key == op(evaluate) for e in result.all_events)
    assert own.manifest(train) == before
    assert own.manifest("registry/champion__sequential") == gate
    (told,) = observations(result)
    assert told.partition == "shop" and told.description.startswith("Experiment, no version")
    table = told.metadata["experiment"].value
    for row in ("| backbone.fit.epochs | 2 | 3 |", "| backbone.fit.lr | 0.001 | 0.02 |",
                "| seed | 0 | 7 |"):  # fmt: skip
        assert row in table
    run_id = told.metadata["mlflow_run"].value.rpartition("/")[2]
    tracked = MlflowStore.from_settings(own.settings()).client().get_run(run_id)
    assert tracked.data.tags["experiment"] == "yes" and tracked.data.tags["published"] == "no"
    assert tracked.data.params["backbone.fit.lr"] == "0.02"
    assert tracked.data.params["seed"] == "7" and tracked.info.status == "FINISHED"
    cells = [json.loads(p.read_text())
             for p in (own.home / "data/llmers/cells/shop").glob("*/cell.json")]  # fmt: skip
    assert [c["epochs"] for c in cells if c["arm"] == "experiment"] == [3]
    with open_instance(own.settings()) as instance:
        tags = instance.get_run_by_id(result.run_id).tags
    assert tags[EXPERIMENT_TAG] == f"{train}: no version"
    again = run(own, {"experiment": wanted}, train)
    assert observations(again)[0].metadata["mlflow_run"].value.endswith(run_id), "trained once"
    # What is published afterwards is made as if the experiment had never been.
    assert run(own, {"force": True}, train).success
    assert own.manifest(train).data_version == before.data_version


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"experiment": {"epochs": 2}}, "those of the asset"),
        ({"device": "cuda"}, "finds no CUDA device"),
    ],
)
def test_a_wrong_config_is_told_before_the_first_step_works(
    own: Shop, config: dict[str, Any], why: str
) -> None:
    import torch

    if config.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    train = name_of(own, "recommenders", SEQUENTIAL)
    rows = own.read("items")
    rows[0]["title"] = "A title that would make the whole chain stale"
    own.write("items", rows)
    items = own.manifest("catalog/items")
    result = run(own, config, train, "catalog/items", "item_summaries/item_summary")
    assert not result.success
    assert why in messages(result) and train in messages(result)
    assert own.manifest("catalog/items") == items, "the first step of the run already refuses"


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"experiment": {"lr": "quick"}}, "Float_1e-08_to_10"),
        ({"experiment": {"lr": 50.0}}, "50.0 is out of range: 1e-08 to 10"),
        ({"experiment": {"epoch": 3}}, 'unexpected config entry "epoch"'),
        ({"experiment": {"epochs": 0}}, "0 is out of range: 1 to 100000"),
        ({"experiment": {"backbone": {"dimm": 8}}}, 'unexpected config entry "dimm"'),
        ({"experiment": {"backbone": {"dim": "wide"}}}, "Int_1_to_100000"),
        ({"experiment": {"backbone": {"dim": 0}}}, "0 is out of range: 1 to 100000"),
        ({"experiment": {"backbone": {"fit": {"batch": -1}}}}, "-1 is out of range: 1 to 1000000"),
        ({"experiment": {"parts": {"dual_view": {"x": 1}}}}, 'unexpected config entry "dual_view"'),
        ({"threads": 9999}, "9999 is out of range: 1 to 512, or 0 for as configured"),
        ({"device": "tpu"}, "tpu"),
        ({"budget_calls": 3}, 'unexpected config entry "budget_calls"'),
        ({"model": "another"}, 'unexpected config entry "model"'),
    ],
)
def test_types_names_and_ranges_are_refused_without_a_run(
    shop: Shop, config: dict[str, Any], why: str
) -> None:
    with open_instance(shop.settings()) as instance:
        before = instance.get_runs_count()
        with pytest.raises(dg.DagsterInvalidConfigError, match=why):
            run(shop, config, name_of(shop, "recommenders", SEQUENTIAL))
        assert instance.get_runs_count() == before


def test_what_lies_outside_of_the_digest_makes_the_same_version(own: Shop) -> None:
    import torch

    train = name_of(own, "recommenders", CTR)
    before, threads = own.manifest(train), torch.get_num_threads()
    result = run(own, {"force": True, "device": "cpu", "threads": 1}, train)
    assert result.success and own.manifest(train).data_version == before.data_version
    assert torch.get_num_threads() == threads
    embed = "llm_embeddings/item_text"
    version = own.manifest(embed).data_version
    assert run(own, {"force": True, "batch_tokens": 64}, embed).success
    assert own.manifest(embed).data_version == version


def test_a_closed_form_model_has_no_epochs(shop: Shop) -> None:
    result = run(shop, {"experiment": {"epochs": 5}}, "recommenders/knnblend")
    assert "is solved in closed form, there are no epochs" in messages(result)


def test_an_endpoint_needs_an_engine_that_asks_one(shop: Shop) -> None:
    summary = "item_summaries/item_summary"
    result = run(shop, {"endpoint": "http://127.0.0.1:1"}, summary)
    assert "which asks no endpoint" in messages(result)
    assert "begins with http" in messages(run(shop, {"endpoint": "localhost:1"}, summary))


def test_a_version_shows_pictures_links_and_rows(shop: Shop) -> None:
    with open_instance(shop.settings()) as instance:
        for name, wanted in (
            (name_of(shop, "recommenders", SEQUENTIAL), {"plot of epochs", "plot of scores"}),
            (name_of(shop, "recommenders", CTR), {"plot of epochs", "plot of scores"}),
            ("item_summaries/item_summary", {"plot of scores", "sample rows", "column_lineage"}),
            ("llm_embeddings/item_text", {"plot of scores", "sample rows", "device"}),
        ):
            event = instance.get_latest_materialization_event(dg.AssetKey(name.split("/")))
            told = event.asset_materialization.metadata
            assert wanted <= set(told), name
            for key in (k for k in wanted if k.startswith("plot")):
                # from 1,000 characters on the UI hides an entry behind a link
                assert len(told[key].value) < 1000 and told[key].value.startswith("![")
            if name.startswith("recommenders"):
                assert told["mlflow_run"].value.startswith("http://127.0.0.1:5000/#/runs/")


def test_the_report_shows_what_was_evaluated(shop: Shop) -> None:
    job = build_definitions(shop.settings()).resolve_job_def("report")
    with open_instance(shop.settings()) as instance:
        result = job.execute_in_process(partition_key="shop", instance=instance)
    (event,) = [e for e in result.all_events if e.is_step_materialization]
    told = event.materialization.metadata
    assert told["best ctr"].value and told["best sequential"].value
    assert "95 % interval" in told["report"].value
    assert (shop.home / "data/llmers/reports/shop.md").read_text() == told["report"].value


def test_a_job_leaves_out_what_a_data_set_has_no_task_for(own: Shop) -> None:
    toml = own.folder / "shop.toml"
    text = toml.read_text()
    start = text.index("[splits.ctr]")
    toml.write_text(text[:start] + text[text.index("[recorded.item_summary]"):].replace(
        '"ctr"\nlabels_seen = true', '"none"'))  # fmt: skip
    job = build_definitions(own.settings()).resolve_job_def("champion_race")
    with open_instance(own.settings()) as instance:
        result = job.execute_in_process(
            partition_key="shop", instance=instance, raise_on_error=False
        )
    assert result.success, messages(result)
    skipped = {e.step_key for e in result.all_events if e.is_step_skipped}
    assert {"registry__champion__ctr", "recommenders__deepfm"} <= skipped
    made = {"__".join(e.asset_key.path) for e in result.all_events if e.is_step_materialization}
    assert "registry__champion__sequential" in made and "catalog__splits__ctr" not in made
    alone = run(own, {}, "catalog/splits__ctr")
    assert not alone.success and "ctr" in messages(alone)


def test_the_report_of_nothing_says_so(shop: Shop) -> None:
    job = build_definitions(shop.settings()).resolve_job_def("report")
    with open_instance(shop.settings()) as instance:
        result = job.execute_in_process(
            partition_key="sample", instance=instance, raise_on_error=False
        )
    assert "nothing of data set 'sample' has been evaluated yet" in messages(result)


def test_schedules_are_off_and_ask_for_each_data_set_in_use(shop: Shop) -> None:
    defs = build_definitions(shop.settings())
    with open_instance(shop.settings()) as instance:
        repository = defs.get_repository_def()
        for schedule in defs.schedules:
            assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
            context = dg.build_schedule_context(
                instance, datetime(2026, 1, 4, 4, tzinfo=UTC), repository_def=repository
            )
            asked = schedule.evaluate_tick(context).run_requests
            assert [r.partition_key for r in asked] == ["shop"], schedule.name
