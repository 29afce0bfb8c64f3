"""Experiments with another language model or encoder: made apart, shared answers, no version."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from launched import messages, name_of, observations, op, run
from loopback import Loopback
from shop import BOOKS, CTR, SEQUENTIAL, Shop, summary
from tiny_lm import make_tiny_lm

from llmers_pipelines.orchestrate.events import EXPERIMENT_TAG
from llmers_pipelines.orchestrate.home import open_instance
from llmers_pipelines.orchestrate.measured import measured
from llmers_pipelines.orchestrate.prune import plan_pruning, prune
from llmers_pipelines.orchestrate.refresh import compare
from llmers_pipelines.registry.mlflow_store import MlflowStore
from llmers_pipelines.store.responses import ResponseStore

SUMMARY = "item_summaries/item_summary"
VECTORS = "llm_embeddings/item_summary"
PRICE = '[prices."shop/model"]\ninput = 1.0\noutput = 2.0'
LLM = '[llm]\nengine = "openai"\nmodel = "shop/model"\nendpoint = "{}"\nmax_tokens = 200'


def asking(url: str, **more: Any) -> dict[str, Any]:
    return {"engine": "openai", "model": "shop/model", "endpoint": url, "max_tokens": 200, **more}


def published(shop: Shop) -> dict[str, str]:
    """Return every file that stands for a version, a fit or a failure, with its hash."""
    data = shop.home / "data" / "llmers"
    return {
        str(p.relative_to(data)): hashlib.sha256(p.read_bytes()).hexdigest()
        for part in ("manifests", "warehouse", "fits", "encoders", "refresh", "cells")
        for p in sorted((data / part).rglob("*")) if p.is_file()
    }  # fmt: skip


def places(shop: Shop) -> list[Path]:
    return sorted((shop.home / "data/llmers/experiments").glob("*"))


def made_in(place: Path) -> set[str]:
    found = place.glob("manifests/shop/*/*/current.json")
    return {f"{p.parent.parent.name}/{p.parent.name}" for p in found}


def tracked(shop: Shop, told: Any) -> Any:
    run_id = told.metadata["mlflow_run"].value.rpartition("/")[2]
    return MlflowStore.from_settings(shop.settings()).client().get_run(run_id)


def test_another_language_model_is_asked_once_and_publishes_nothing(own: Shop) -> None:
    own.choose(PRICE)
    train = name_of(own, "recommenders", SEQUENTIAL)
    evaluate = train.replace("recommenders/", "evaluations/")
    before = published(own)
    with Loopback(answer=summary) as server:
        wanted = {"llm": asking(server.url), "epochs": 3}
        result = run(own, {"experiment": wanted}, train, evaluate)
        assert result.success, messages(result)
        assert len(server.asked) == BOOKS
        assert published(own) == before
        assert [e for e in result.all_events if e.is_step_materialization] == []
        assert any(e.is_step_skipped and e.step_key == op(evaluate) for e in result.all_events)

        (told,) = observations(result)
        assert told.description.startswith("Experiment, no version published")
        assert "to the published version" in told.description
        table = told.metadata["experiment"].value
        assert "| llm | auto (max_tokens 512, temperature 0, seed 0) | openai:shop/model@ " in table
        assert "| backbone.fit.epochs | 2 | 3 |" in table and "| encoder |" not in table
        assert told.metadata["llm_calls of what was made apart"].value == BOOKS
        (place,) = places(own)
        made = made_in(place)
        assert {SUMMARY, VECTORS} <= made and len(made) == 3
        assert not any(name.startswith(("catalog/", "recommenders/")) for name in made)
        assert all(f"| {name} | {BOOKS} |" in told.metadata["made apart"].value for name in made)

        mlflow = tracked(own, told)
        assert mlflow.data.tags["experiment"] == "yes" and mlflow.data.tags["published"] == "no"
        assert mlflow.data.params["llm"].startswith("openai:shop/model@ (max_tokens 200")
        assert mlflow.data.params["encoder"] == "tfidf?dim=24"
        spent = {n: mlflow.data.metrics[n] for n in ("llm_calls", "tokens_in", "tokens_out")}
        assert spent["llm_calls"] == BOOKS and spent["tokens_in"] > 0 < spent["tokens_out"]
        cost = (spent["tokens_in"] + 2 * spent["tokens_out"]) / 1e6
        assert mlflow.data.metrics["money"] == pytest.approx(cost)
        with open_instance(own.settings()) as instance:
            tags = instance.get_run_by_id(result.run_id).tags
        assert tags[EXPERIMENT_TAG] == f"{train}: no version"
        lines = [m for m in measured(own.settings()) if m.asset == SUMMARY and m.llm_calls]
        assert [m.experiment for m in lines] == [True]

        server.asked.clear()
        again = run(own, {"experiment": wanted}, train)
        assert again.success and server.asked == [], "what was paid for is read back"
        assert tracked(own, observations(again)[0]).info.run_id == mlflow.info.run_id
        assert " before |" in observations(again)[0].metadata["made apart"].value
        other = {"llm": asking(server.url), "lr": 0.02}
        assert run(own, {"experiment": other}, train).success and server.asked == []
        assert places(own) == [place] and published(own) == before

        # Whoever then chooses that model for good pays nothing for what the experiment asked.
        own.choose(LLM.format(server.url))
        assert own.work(SUMMARY)[SUMMARY] == "materialized" and server.asked == []
        assert own.manifest(SUMMARY).counts["cache_hits"] == BOOKS
        settled = run(own, {"experiment": wanted}, train)
        assert "the asset is made with that already" in messages(settled)


def test_another_encoder_asks_no_language_model(own: Shop, tmp_path: Path) -> None:
    model = make_tiny_lm(tmp_path / "encoder")
    train = name_of(own, "recommenders", SEQUENTIAL)
    before = published(own)
    result = run(own, {"experiment": {"encoder": f"{model}?max_length=16"}}, train)
    assert result.success, messages(result)
    assert published(own) == before
    (place,) = places(own)
    assert SUMMARY not in made_in(place), "published answers are read where they are"
    assert VECTORS in made_in(place)
    (told,) = observations(result)
    assert "| encoder | tfidf?dim=24 |" in told.metadata["experiment"].value
    mlflow = tracked(own, told)
    assert mlflow.data.params["encoder"] == f"{model}?max_length=16"
    assert mlflow.data.params["llm"].startswith("auto (")
    assert mlflow.data.metrics["encoded"] == BOOKS and "llm_calls" not in mlflow.data.metrics
    # The vectors are in the shared store: choosing the encoder for good encodes nothing.
    text = (own.home / "llmers.toml").read_text()
    (own.home / "llmers.toml").write_text(
        text.replace("tfidf?dim=24", f"{model}?max_length=16")
    )  # fmt: skip
    assert own.work(VECTORS)[VECTORS] == "materialized"
    assert own.manifest(VECTORS).counts["encoded"] == 0


def test_a_budget_ends_an_experiment_and_what_was_bought_stays(own: Shop) -> None:
    train = name_of(own, "recommenders", SEQUENTIAL)
    before = published(own)
    with Loopback(answer=summary) as server:
        few = {"llm": asking(server.url, budget_calls=5, concurrency=1)}
        stopped = run(own, {"experiment": few}, train)
        assert "budget reached: 5 of 5 calls" in messages(stopped) and len(server.asked) == 5
        with open_instance(own.settings()) as instance:
            tags = instance.get_run_by_id(stopped.run_id).tags
        assert tags["llmers/ended"] == "budget reached"
        assert published(own) == before, "no failure is noted of the published asset"
        rest = run(own, {"experiment": {"llm": asking(server.url)}}, train)
        assert rest.success and len(server.asked) == BOOKS
        bill = tracked(own, observations(rest)[0]).data.metrics
        assert (bill["llm_calls"], bill["cache_hits"]) == (BOOKS, 0), "both attempts are told"


def test_a_table_of_answers_and_of_vectors_can_be_tried_alone(own: Shop) -> None:
    before = published(own)
    with Loopback(answer=summary) as server:
        result = run(own, {"experiment": {"llm": asking(server.url)}}, SUMMARY, VECTORS)
        assert result.success, messages(result)
        assert len(server.asked) == BOOKS and published(own) == before
        assert any(e.is_step_skipped and e.step_key == op(VECTORS) for e in result.all_events)
        (told,) = observations(result)
        assert told.metadata["rows"].value == BOOKS
        assert (Path(told.metadata["path"].value) / "rows.parquet").is_file()
        assert "follows people" in told.metadata["sample rows"].value
        vectors = run(own, {"experiment": {"llm": asking(server.url)}}, VECTORS)
        assert vectors.success and len(server.asked) == BOOKS, "experiments share their place"
        assert len(places(own)) == 1 and published(own) == before


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"llm": {"engine": "hf", "model": "./nowhere"}}, "'./nowhere': no such folder"),
        ({"llm": {"engine": "hf"}}, 'engine = "hf" needs llm.model'),
        ({"llm": {"model": "some/model"}}, "the engine 'auto' has no model; give engine as well"),
        ({"llm": {"engine": "openai", "model": "m"}}, "llm.endpoint is not set"),
        ({"llm": {"engine": "openai", "model": "m", "endpoint": "http://me:pw@a/v1"}},
         "llm.endpoint holds a user"),
        ({"llm": {"engine": "openai", "model": "m", "endpoint": "http://127.0.0.1:9/v1",
                  "api_key_env": "SHOP_NO_KEY"}}, "the variable SHOP_NO_KEY, which api_key_env"),
        ({"llm": {"engine": "openai", "model": "m", "endpoint": "http://127.0.0.1:9/v1",
                  "budget_money": 1.0}}, r'needs the price of \'m\''),
        ({"llm": {"engine": "auto"}}, "llm: the asset is made with that already"),
        ({"encoder": "tfidf?dim=24"}, "encoder: the asset is made with that already"),
        ({"encoder": "./nowhere"}, "'./nowhere': there is no such folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told_before_the_first_step_works(
    own: Shop, wanted: dict[str, Any], why: str
) -> None:
    train = name_of(own, "recommenders", SEQUENTIAL)
    rows = own.read("items")
    rows[0]["title"] = "A title that would make the whole chain stale"
    own.write("items", rows)
    before = published(own)
    result = run(own, {"experiment": wanted}, train, "catalog/items", SUMMARY)
    assert not result.success and re.search(why, messages(result)), messages(result)
    assert "pw@" not in messages(result)
    assert published(own) == before and places(own) == []


@pytest.mark.parametrize(
    ("name", "wanted", "why"),
    [
        (SEQUENTIAL, {"llm": {"engine": "gpt"}}, "gpt"),
        (SEQUENTIAL, {"llm": {"api_key": "x"}}, 'unexpected config entry "api_key"'),
        (SEQUENTIAL, {"llm": {"max_tokens": 0}}, "0 is out of range: 1 to 1000000"),
        (SEQUENTIAL, {"encoder": "minlim"}, "did you mean 'minilm'"),
        (SEQUENTIAL, {"encoder": "tfidf?width=3"}, "an encoder has no setting 'width'"),
        (SEQUENTIAL, {"encoder": "tfidf?dim=16", "lr": 50.0}, r"50\.0 is out of range"),
        ("sasrec", {"llm": {"engine": "template"}}, 'unexpected config entry "llm"'),
        ("sasrec", {"encoder": "tfidf"}, 'unexpected config entry "encoder"'),
    ],
)
def test_names_and_ranges_of_models_are_refused_without_a_run(
    shop: Shop, name: str, wanted: dict[str, Any], why: str
) -> None:
    with open_instance(shop.settings()) as instance:
        before = instance.get_runs_count()
        with pytest.raises(dg.DagsterInvalidConfigError, match=why):
            run(shop, {"experiment": wanted}, name_of(shop, "recommenders", name))
        assert instance.get_runs_count() == before


def test_answers_of_a_template_are_an_experiment_as_well(own: Shop) -> None:
    """Click models with several tables: everything that reads an answer is made apart."""
    train = name_of(own, "recommenders", CTR)
    before, stale = published(own), compare(own.plan().nodes, own.context()).rows
    result = run(own, {"experiment": {"llm": {"engine": "template"}}}, train)
    assert result.success, messages(result)
    (place,) = places(own)
    assert any(name.startswith("user_profiles/") for name in made_in(place))
    assert published(own) == before
    cells = [json.loads(p.read_text())["arm"] for p in place.glob("cells/shop/*/cell.json")]
    assert cells == ["experiment"]
    assert compare(own.plan().nodes, own.context()).rows == stale, "the sensor sees nothing new"


def test_an_old_experiment_is_pruned_and_its_answers_stay(own: Shop) -> None:
    settings = own.settings()
    with Loopback(answer=summary) as server:
        assert run(own, {"experiment": {"llm": asking(server.url)}}, SUMMARY).success
    (place,) = places(own)
    kept = plan_pruning(settings, older_than=7.0)
    assert "experiment" not in {i.kind for i in kept.items}
    for path in [place, *place.rglob("*")]:
        os.utime(path, (1_600_000_000, 1_600_000_000))
    plan = plan_pruning(settings, older_than=7.0)
    assert [i.name for i in plan.items if i.kind == "experiment"] == [place.name]
    before, answers = published(own), ResponseStore(settings.data / "responses").stats()["rows"]
    prune(settings, plan)
    assert places(own) == [] and published(own) == before
    assert ResponseStore(settings.data / "responses").stats()["rows"] == answers > 0


def test_a_local_model_answers_an_experiment(own: Shop, tmp_path: Path) -> None:
    """Its answers are noise and refused row by row; that is a result, and told as one."""
    model = make_tiny_lm(tmp_path / "lm")
    before = published(own)
    wanted = {"llm": {"engine": "hf", "model": str(model), "max_tokens": 8}}
    result = run(own, {"experiment": wanted}, SUMMARY)
    assert published(own) == before
    assert result.success, messages(result)
    told = observations(result)[0].metadata
    assert f"| {SUMMARY} | {BOOKS} | {BOOKS} |" in told["made apart"].value, "all are refused"
    assert SUMMARY in told["failed checks"].value
    assert told["llm_calls of what was made apart"].value >= BOOKS
