"""`llmers tune` on the shop: real trainings, budgets, kills, pruning, and no row of the test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from shop import Shop, same_environment

from llmers_pipelines.data.training import TEST
from llmers_pipelines.orchestrate.tuning.space import arms_of
from llmers_pipelines.registry.mlflow_store import MlflowStore
from llmers_pipelines.registry.tuning_run import PARENT
from llmers_pipelines.train import loop

SEARCH = ("tune", "llm2x", "--backbone", "sasrec", "--set", "fit.epochs=3")
ALONE = ("tune", "sasrec", "--set", "fit.epochs=3", "--set", "fit.lr=1e-5..1e-1:log")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Return a shop in which one trial was made, and so all that trainings read."""
    shop = Shop.open(tmp_path_factory.mktemp("tuned") / "home")
    shop.ask(*SEARCH, "--trials", "1", "--with-base")
    return shop


@pytest.fixture
def bare(made: Shop, tmp_path: Path) -> Shop:
    """Return a copy without any trial."""
    own = made.copy(tmp_path / "home")
    for folder in ("tuning", "cells"):
        subprocess.run(["rm", "-r", str(own.home / "data" / "llmers" / folder)], check=True)
    return own


def cells(shop: Shop) -> dict[str, dict[str, Any]]:
    found = (shop.home / "data/llmers/cells/shop").glob("*/cell.json")
    return {p.parent.name: json.loads(p.read_text()) for p in found}


def told(rows: list[dict[str, Any]]) -> list[Any]:
    return [(r["settings"], r["value"], r["why"]) for r in rows]


def test_both_arms_have_equal_budgets_and_a_second_call_trains_nothing(bare: Shop) -> None:
    found = bare.ask(*SEARCH, "--trials", "4", "--with-base")
    assert found["complete"] and found["metric"] == "ndcg@10"
    assert [a["arm"] for a in found["arms"]] == ["enhanced", "base"]
    enhanced, base = found["arms"]
    assert enhanced["trials"] == base["trials"] == 4
    assert set(enhanced["space"]) == set(base["space"]) == {
        "fit.lr", "fit.weigh", "dropout", "layers", "fit.epochs",
    }  # fmt: skip
    assert {r["settings"]["fit.epochs"] for r in enhanced["rows"]} == {3}
    assert enhanced["rows"][0]["settings"]["fit.lr"] == 0.001, "the first: as it is"
    for arm in found["arms"]:
        values = [r["value"] for r in arm["rows"] if r["value"] is not None]
        assert arm["best"] == max(values) and arm["default"] == arm["rows"][0]["value"]
        assert arm["gain"] == pytest.approx(arm["best"] - arm["default"])
        assert arm["curve"]["1"] == arm["default"] and arm["curve"]["4"] == arm["best"]
    stored = cells(bare)
    ended = sum(r["value"] is not None for a in found["arms"] for r in a["rows"])
    assert len(stored) == ended and {c["arm"] for c in stored.values()} == {"trial"}
    times = {p: p.stat().st_mtime_ns for p in bare.home.glob("data/llmers/cells/shop/*/*")}
    again = bare.ask(*SEARCH, "--trials", "4", "--with-base")
    assert [told(a["rows"]) for a in again["arms"]] == [told(a["rows"]) for a in found["arms"]]
    assert times == {p: p.stat().st_mtime_ns for p in bare.home.glob("data/llmers/cells/shop/*/*")}
    more = bare.ask(*SEARCH, "--trials", "5", "--with-base")
    assert told(more["arms"][0]["rows"][:4]) == told(enhanced["rows"])
    # Equal settings are no second training, whatever the search: another one has the same first.
    known = set(cells(bare))
    other = bare.ask(*SEARCH, "--trials", "1", "--seed", "9")
    assert set(cells(bare)) == known and other["arms"][0]["default"] == enhanced["default"]


def test_trials_are_children_of_one_run_with_settings_and_epochs(bare: Shop) -> None:
    found = bare.ask(*SEARCH, "--trials", "2", "--with-base")
    client = MlflowStore.from_settings(bare.settings()).client()
    parent = client.get_run(found["arms"][0]["mlflow_run"])
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["enhanced.best"] == str(found["arms"][0]["best"])
    children = client.search_runs(
        [parent.info.experiment_id], f"tags.`{PARENT}` = '{parent.info.run_id}'"
    )
    assert len(children) == 4
    assert {(c.data.tags["search_arm"], c.data.tags["trial"]) for c in children} == {
        (arm, n) for arm in ("enhanced", "base") for n in ("0", "1")
    }
    for child in children:
        arm = next(a for a in found["arms"] if a["arm"] == child.data.tags["search_arm"])
        row = arm["rows"][int(child.data.tags["trial"])]
        assert child.data.params["trial.fit.lr"] == str(row["settings"]["fit.lr"])
        assert child.data.params["backbone.fit.lr"] == str(row["settings"]["fit.lr"])
        assert child.data.metrics["best_valid"] == pytest.approx(row["value"])
        epochs = client.get_metric_history(child.info.run_id, "valid")
        assert [m.step for m in epochs] == [1, 2, 3]
        assert child.data.tags["published"] == "no"


def test_no_row_of_the_test_split_reaches_a_trial(
    bare: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = loop.fit

    def fit(train: Any, data: Any, *more: Any, **named: Any) -> Any:
        seen.append(set(data.split.tolist()))
        return real(train, data, *more, **named)

    monkeypatch.setattr(loop, "fit", fit)
    bare.ask(*ALONE, "--trials", "2")
    assert len(seen) == 2 and all(TEST not in splits for splits in seen)
    for key in cells(bare):
        folder = bare.home / "data/llmers/cells/shop" / key
        assert (folder / "valid.parquet").is_file() and not (folder / "test.parquet").exists()


def test_the_lines_to_paste_make_the_best_trial(bare: Shop) -> None:
    found = bare.ask(*ALONE, "--trials", "4")["arms"][0]
    best = next(r for r in found["rows"] if r["trial"] == found["best_trial"])
    (arm,) = arms_of(bare.settings(), "sasrec")
    wanted = arms_of(bare.settings(), "sasrec", asked={"fit.epochs": 3})[0].train(best["settings"])
    assert wanted.code_version != arm.node.code_version
    (bare.home / "llmers.toml").write_text('[llmers]\ndataset = "shop"\n' + found["toml"])
    pasted = next(m.train for m in bare.plan().methods if m.recipe.slug == "sasrec")
    assert pasted.code_version == wanted.code_version


def test_settings_of_parts_are_searched_and_kept(bare: Shop) -> None:
    config = bare.home / "llmers.toml"
    config.write_text(config.read_text() + '[[methods]]\nrecipe = "dllm2rec"\n'
                      "backbone_settings = { dim = 8, inner = 16, max_len = 10, "
                      "fit = { epochs = 2, min_epochs = 1 } }\n")  # fmt: skip
    (arm,) = arms_of(bare.settings(), "dllm2rec")
    assert {"text_offset.weight", "ranking_distillation.weight"} <= set(arm.space)
    chosen = {**arm.default, "text_offset.weight": 0.5}
    made = arm.train(chosen)
    assert made.fuse[0].weight == 0.5 and made.inputs == arm.node.inputs
    method = arm.changed(chosen)
    assert method.part_settings == {"text_offset": {"weight": 0.5}}
    # the recipe's own name for the same setting
    (named,) = arms_of(bare.settings(), "dllm2rec", asked={"offset": "0.1..1"})
    assert named.train({**named.default, "offset": 0.5}).fuse[0].weight == 0.5


def test_a_killed_search_ends_as_one_that_was_not(made: Shop, bare: Shop, tmp_path: Path) -> None:
    whole = bare.ask(*ALONE, "--trials", "5", "--pruner", "none")["arms"][0]
    own = made.copy(tmp_path / "killed")
    words = ["--home", str(own.home), "--config", str(own.home / "llmers.toml")]
    script = "from llmers_pipelines.cli import run_main; run_main()"
    with same_environment():
        environment = {**os.environ, "LLMERS_CHECKPOINT_SECONDS": "0.000001"}
        process = subprocess.Popen(
            [sys.executable, "-c", script, *ALONE, "--trials", "5", "--pruner", "none", *words],
            env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    folder = own.home / "data/llmers"
    before = len(cells(own))
    until = time.monotonic() + 400  # on a busy machine it takes a while until it trains
    while time.monotonic() < until and process.poll() is None:
        if len(cells(own)) - before >= 2 and list(folder.glob("checkpoints/shop/*/*/epoch-*")):
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ended = len(cells(own)) - before
    assert 2 <= ended < 5, "it was killed in the middle"
    again = own.ask(*ALONE, "--trials", "5", "--pruner", "none")["arms"][0]
    assert told(again["rows"]) == told(whole["rows"])
    assert not list(folder.glob("checkpoints/shop/*")), "what was stored needs none"


def test_what_falls_behind_is_pruned_and_leaves_a_run(bare: Shop) -> None:
    found = bare.ask(*ALONE, "--trials", "12")["arms"][0]
    assert found["pruned"] >= 1 and found["pruned"] == sum(
        r["why"].startswith("pruned at epoch") for r in found["rows"]
    )
    assert len(cells(bare)) == 12 - found["pruned"]
    client = MlflowStore.from_settings(bare.settings()).client()
    parent = client.get_run(found["mlflow_run"])
    children = client.search_runs(
        [parent.info.experiment_id], f"tags.`{PARENT}` = '{parent.info.run_id}'"
    )
    assert sum("pruned" in c.data.tags for c in children) == found["pruned"]


def test_time_that_is_spent_stops_the_call_and_the_next_goes_on(bare: Shop) -> None:
    found = bare.ask(*ALONE, "--trials", "3", "--seconds", "0.000001")
    assert not found["complete"] and found["arms"][0]["trials"] == 0
    kept = list((bare.home / "data/llmers/checkpoints/shop").glob("*/anew/epoch-*"))
    assert [p.name for p in kept] == ["epoch-000001"], "however short it was"
    bare.ask(*ALONE, "--trials", "3", "--seconds", "0.000001")
    assert [p.name for p in kept[0].parent.iterdir()] == ["epoch-000002"], "each call is a step on"
    client = MlflowStore.from_settings(bare.settings()).client()
    assert client.get_run(found["arms"][0]["mlflow_run"]).info.status == "KILLED"
    whole = bare.ask(*ALONE, "--trials", "3")
    assert whole["complete"] and whole["arms"][0]["trials"] == 3
    assert whole["arms"][0]["mlflow_run"] == found["arms"][0]["mlflow_run"]


def test_a_model_in_closed_form_is_searched_too(bare: Shop) -> None:
    """One fit is one step: however short a call is, it ends one, and none is thrown away."""
    short = ("tune", "ease", "--trials", "6", "--seconds", "0.000001")
    for call in range(1, 6):
        told = bare.ask(*short)
        assert not told["complete"] and told["arms"][0]["trials"] == call
    last = bare.ask(*short)
    assert last["complete"] and last["arms"][0]["trials"] == 6
    found = last["arms"][0]
    assert found["arm"] == "method" and set(found["space"]) == {"l2"}
    assert found["pruned"] == 0 and all(r["value"] is not None for r in found["rows"])


def test_a_call_that_is_spent_in_the_last_epoch_ends_the_trial(bare: Shop) -> None:
    short = ("tune", "sasrec", "--set", "fit.epochs=1", "--set", "fit.lr=1e-3..1e-2")
    found = bare.ask(*short, "--trials", "2", "--seconds", "0.000001")
    assert found["arms"][0]["trials"] == 1, "nothing was left to do"


def test_trials_that_failed_or_came_twice_are_runs_as_well(
    bare: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = tmp_path / "space.toml"
    space.write_text('dropout = [0.1, 0.3]\n[fit]\nepochs = "2"\n')
    monkeypatch.setenv("LLMERS_CHECKPOINT_SECONDS", "0.000001")
    real = loop.take_steps

    def steps(model: Any, *more: Any) -> Any:
        number = more[3]
        mean, step = real(model, *more)
        return (float("nan") if number == 2 and model.config["dropout"] == 0.3 else mean), step

    monkeypatch.setattr(loop, "take_steps", steps)
    found = bare.ask("tune", "sasrec", "--space", str(space), "--trials", "6")["arms"][0]
    failed = [r for r in found["rows"] if r["why"].startswith("failed: ")]
    values = [json.dumps(r["settings"], sort_keys=True) for r in found["rows"]]
    assert failed and len(set(values)) < 6, "the seed draws both, and some settings twice"
    client = MlflowStore.from_settings(bare.settings()).client()
    parent = client.get_run(found["mlflow_run"])
    children = {c.data.tags["trial"]: c for c in client.search_runs(
        [parent.info.experiment_id], f"tags.`{PARENT}` = '{parent.info.run_id}'"
    )}  # fmt: skip
    assert set(children) == set("012345")
    for n, row in enumerate(found["rows"]):
        child = children[str(n)]
        assert child.data.params["trial.dropout"] == str(row["settings"]["dropout"])
        assert child.data.params["backbone.dropout"] == str(row["settings"]["dropout"])
        assert child.data.tags.get("failed", "") == row["why"].removeprefix("failed: ")
        earlier = values.index(values[n])
        assert child.data.tags.get("repeats") == (str(earlier) if earlier < n else None)
        if row["value"] is None:
            assert "best_valid" not in child.data.metrics
        else:
            assert child.data.metrics["best_valid"] == pytest.approx(row["value"])
        epochs = client.get_metric_history(child.info.run_id, "valid")
        assert [m.step for m in epochs] == ([1] if row["value"] is None else [1, 2])
    assert not list((bare.home / "data/llmers/checkpoints/shop").glob("*")), "none goes on"


def test_the_table_for_people_says_what_to_do(bare: Shop) -> None:
    result = bare.invoke(*ALONE, "--trials", "3", "--pruner", "none")
    assert result.exit_code == 0, result.exception
    for text in ("validation ndcg@10 on shop", "best after so many trials", "fit.lr",
                 "llmers run` with several seeds"):  # fmt: skip
        assert text in result.stdout


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("sasrecc",), "no recipe 'sasrecc'; did you mean 'sasrec'?"),
        (("sasrec", "--set", "droput=0..1"), "no setting 'droput' that can be searched; did you "
         "mean 'dropout'?"),
        (("sasrec", "--set", "dropout"), "write NAME=RANGE"),
        (("sasrec", "--set", "fit.lr=1..0"), "fit.lr: 1..0: the first bound"),
        (("sasrec", "--set", "fit.lr=1e-3..50"), "lr = 50.0: Learning rate, 1e-08 to 10.0."),
        (("sasrec", "--set", "dim=0,8"), "dim = 0 of SASRec: 1 to 100,000"),
        (("sasrec", "--set", "fit.precision=float32,half"), "fit.precision is 'half'"),
        (("llm2x", "--set", "dim=8,16"), "which the method does not: a search trains alone"),
        (("sasrec", "--with-base"), "sasrec is a backbone alone"),
        (("popularity",), "has nothing to search"),
        (("sasrec", "--trials", "0"), "a budget is at least 1 trial"),
        (("ease", "--set", "fit.lr=1e-4..1e-2"), "no setting 'fit.lr'"),
        (("llm2x", "--backbone", "sasrek"), "no backbone 'sasrek'"),
        (("nrms",), "data set 'shop' has no split 'news'; it has sequential, ctr"),
    ],
)  # fmt: skip
def test_a_wrong_search_is_told_before_it_trains(
    made: Shop, words: tuple[str, ...], why: str
) -> None:
    result = made.invoke("tune", *words)
    assert result.exit_code != 0 and why in str(result.exception), result.exception


def test_a_file_of_ranges_replaces_the_defaults(bare: Shop, tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text('dropout = [0.1, 0.3]\n[fit]\nepochs = "2"\nlr = { low = 1e-3, high = 0.01 }')
    found = bare.ask("tune", "sasrec", "--space", str(space), "--trials", "3")["arms"][0]
    assert found["space"] == {"dropout": "0.1,0.3", "fit.epochs": "2", "fit.lr": "0.001..0.01"}
    space.write_text("dropout =")
    result = bare.invoke("tune", "sasrec", "--space", str(space))
    assert "space.toml" in str(result.exception)


def test_answers_that_cost_are_not_bought(bare: Shop) -> None:
    bare.choose('[llm]\nengine = "openai"\nmodel = "m"')
    result = bare.invoke("tune", "kar")
    assert "may cost; run `llmers run" in str(result.exception)
