from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from registry_samples import META, sasrec, write

from llmers_pipelines.config import Settings
from llmers_pipelines.evaluate.gate import Decision
from llmers_pipelines.evaluate.significance import Gain
from llmers_pipelines.registry.champion import decide_and_move
from llmers_pipelines.registry.mlflow_store import (
    MlflowStore,
    NoChampion,
    mlflow_environment,
    model_name,
    version_page,
)
from llmers_pipelines.registry.scorer import Scorer
from llmers_pipelines.registry.training_run import flat_params, metric_key

NAME = model_name("books", "sequential")


GAIN = Gain("ndcg@10", base=0.2, other=0.25, low=-0.1, high=0.2, users=np.int64(5))


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


def verdict(promote: bool, reason: str) -> Decision:
    return Decision(promote, (reason,), {"champion": GAIN})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> MlflowStore:
    home = tmp_path_factory.mktemp("mlflow")
    return MlflowStore(f"sqlite:///{home / 'deep' / 'mlflow.db'}", home / "artifacts")


@pytest.fixture(scope="module")
def trained(store: MlflowStore) -> str:
    with store.training_run(
        dataset="books", task="sequential", asset_key="recommenders/sasrec",
        params={"backbone": Interval(0.5, 2.0), "seed": 3},
        data_versions={"catalog/splits__sequential": "abc", "features/x": "d" * 64},
        dagster_run_id="run-1",
    ) as run:  # fmt: skip
        run.log_epochs([
            {"epoch": 1, "train_loss": 2.0, "valid": None, "seconds": 0.1},
            {"epoch": 2, "train_loss": float("nan"), "valid": 0.25, "seconds": 0.1},
        ])
        run.log_metrics({"ndcg@10": 0.3})
        run.tag({"note": "x" * 9000})
    return run.run_id


@pytest.fixture(scope="module")
def first(store: MlflowStore, trained: str, folder: Path) -> str:
    return store.register_bundle(folder, NAME, {"recipe": "SASRec"}, run_id=trained)


def test_a_training_is_one_run_with_settings_epochs_and_versions(store, trained) -> None:
    client = store.client()
    run = client.get_run(trained)
    assert client.get_experiment(run.info.experiment_id).name == NAME
    assert run.info.status == "FINISHED" and run.info.run_name == "recommenders/sasrec"
    assert run.data.params == {
        "backbone.kind": "Interval", "backbone.low": "0.5", "backbone.high": "2.0", "seed": "3",
        "data.catalog/splits__sequential": "abc", "data.features/x": "d" * 64,
    }  # fmt: skip
    assert run.data.metrics["ndcg_at_10"] == 0.3
    losses = client.get_metric_history(trained, "train_loss")
    assert [(m.step, m.value) for m in losses] == [(1, 2.0)]  # NaN is no value
    assert [(m.step, m.value) for m in client.get_metric_history(trained, "valid")] == [(2, 0.25)]
    assert {i.dataset.name for i in run.inputs.dataset_inputs} == {
        "catalog/splits__sequential", "features/x",
    }  # fmt: skip
    assert len(run.data.tags["note"]) == 4000
    found = client.search_runs([run.info.experiment_id], "tags.`dagster.run_id` = 'run-1'")
    assert [r.info.run_id for r in found] == [trained]


def test_artifacts_lie_in_the_configured_folder(store: MlflowStore, first: str) -> None:
    experiment = store.client().get_experiment_by_name(NAME)
    assert experiment.artifact_location == (store.artifact_root / NAME).as_uri()
    assert store.artifact_root in store.bundle_folder(NAME, first).parents
    assert not Path("mlruns").exists() and not Path("mlflow.db").exists()


def test_a_failed_training_says_why(store: MlflowStore) -> None:
    with pytest.raises(FloatingPointError), store.training_run(
        dataset="books", task="sequential", asset_key="recommenders/bad", params={},
        data_versions={},
    ) as run:  # fmt: skip
        raise FloatingPointError("loss is nan")
    found = store.client().get_run(run.run_id)
    assert found.info.status == "FAILED"
    assert found.data.tags["failure"] == "FloatingPointError: loss is nan"


def test_a_version_leads_to_its_run_and_its_bundle(store, trained, first, folder) -> None:
    version = store.client().get_model_version(NAME, first)
    assert version.run_id == trained
    assert version.tags["recipe"] == "SASRec" and version.tags["dataset"] == "books"
    registered = Scorer.load(store.bundle_folder(NAME, first))
    assert version.tags["llmers.bundle"] == registered.bundle.content_hash
    assert registered.recommend("u2", 3)["items"] == Scorer.load(folder).recommend("u2", 3)["items"]


def test_an_equal_bundle_is_registered_once(store, first, folder) -> None:
    assert store.register_bundle(folder, NAME, {"recipe": "renamed"}) == first
    assert store.client().get_model_version(NAME, first).tags["recipe"] == "renamed"


def test_requirements_name_third_party_packages_alone(store, first) -> None:
    text = (store.bundle_folder(NAME, first).parents[1] / "requirements.txt").read_text()
    names = {line.split("==")[0] for line in text.split()}
    assert names == {"mlflow", "numpy", "pandas", "pyarrow", "safetensors", "torch"}
    assert "://" not in text and "+" not in text


def test_gate_moves_the_alias_or_leaves_the_reason(store, first, tmp_path: Path) -> None:
    name = "llmers-books-gate"
    with pytest.raises(NoChampion, match="none is registered, or the gate refused all"):
        store.champion(name)
    one = store.register_bundle(write(tmp_path / "one", sasrec()), name)
    refused = decide_and_move(store, name, one, verdict(False, "below the reference"))
    assert refused == {
        "model": name, "candidate": one, "promoted": False, "champion": None, "previous": None,
        "reasons": ["below the reference"], "intervals": {"champion": {**asdict(GAIN), "users": 5}},
    }  # fmt: skip
    version = store.client().get_model_version(name, one)
    run = store.client().get_run(version.run_id)
    for tags in (version.tags, run.data.tags):
        assert tags["gate"] == "refused"
        assert json.loads(tags["gate.reasons"]) == ["below the reference"]
    with pytest.raises(NoChampion):
        store.champion(name)

    moved = decide_and_move(store, name, one, verdict(True, "there is no champion yet"))
    assert (moved["champion"], moved["previous"]) == (one, None)
    assert json.dumps(moved)
    two = store.register_bundle(
        write(tmp_path / "two", sasrec(), meta={**META, "model": "KAR 1.0: MLP/DIN"}), name
    )
    assert two != one
    assert decide_and_move(store, name, two, verdict(False, "worse"))["champion"] == one
    assert store.champion(name)[0] == one
    moved = decide_and_move(store, name, two, verdict(True, "better"))
    assert (moved["champion"], moved["previous"]) == (two, one)
    found, folder = store.champion(name)
    assert found == two and Scorer.load(folder).bundle.config["model"] == "KAR 1.0: MLP/DIN"
    assert store.client().get_model_version_by_alias(name, "previous").version == int(one)
    # a champion that is refused later stays until something better comes
    assert decide_and_move(store, name, two, verdict(False, "worse"))["champion"] == two


def test_champion_is_loaded_as_pyfunc_and_answers_frames(store, first, folder) -> None:
    mlflow = store.mlflow()
    store.set_champion(NAME, first)
    model = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    frame = pd.DataFrame({"user_id": ["u2", "stranger", None], "history": [None, ["b5"], None]})
    answer = model.predict(frame, params={"k": 4, "explain": True})
    scorer = Scorer.load(folder)
    for number, (user, history) in enumerate([("u2", None), ("stranger", ["b5"]), (None, None)]):
        rows = answer[answer["row"] == number]
        expected = scorer.recommend(user, 4, history=history, explain=True)
        assert rows["item_id"].tolist() == [i["item_id"] for i in expected["items"]]
        assert rows["rank"].tolist() == [1, 2, 3, 4]
        assert set(rows["fallback"]) == {expected["fallback"] or ""}
        assert [json.loads(e) for e in rows["explanation"]] == [
            i["why"] for i in expected["items"]
        ]  # fmt: skip
    assert set(answer["version"]) == {first}
    plain = model.predict(pd.DataFrame({"user_id": ["u2"]}))
    assert set(plain["explanation"]) == {""} and len(plain) <= 10


def test_wrong_input_is_refused_by_the_signature(store, first) -> None:
    from mlflow.exceptions import MlflowException

    model = store.mlflow().pyfunc.load_model(f"models:/{NAME}/{first}")
    for wrong in ({"user_id": [7]}, {"user": ["u1"]}):
        with pytest.raises(MlflowException):
            model.predict(pd.DataFrame(wrong))
    for history in ("b1", [7]):
        with pytest.raises(ValueError, match=r"row 1: history is .* expected a list of item ids"):
            model.predict(pd.DataFrame({"user_id": ["u1", "u2"], "history": [None, history]}))


def test_a_store_that_depends_on_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="depends on the current folder"):
        MlflowStore("sqlite:///mlflow.db", tmp_path)
    with pytest.raises(ValueError, match="needs an absolute folder"):
        MlflowStore(f"sqlite:///{tmp_path / 'm.db'}", Path("artifacts"))
    with pytest.raises(ValueError, match="needs an absolute folder"):
        MlflowStore(f"sqlite:///{tmp_path / 'm.db'}")


def test_settings_give_place_and_environment(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    store = MlflowStore.from_settings(settings)
    assert store.tracking_uri == f"sqlite:///{tmp_path / 'data' / 'mlflow' / 'mlflow.db'}"
    assert store.artifact_root == tmp_path / "data" / "mlflow" / "artifacts"
    environment = mlflow_environment(settings)
    assert environment["MLFLOW_TRACKING_URI"] == store.tracking_uri
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_usage_reporting_stops_the_store(monkeypatch, store: MlflowStore) -> None:
    import mlflow.telemetry

    monkeypatch.setattr(mlflow.telemetry, "get_telemetry_client", lambda: object())
    with pytest.raises(RuntimeError, match="usage reporting"):
        store.client()


def test_importing_the_store_imports_no_mlflow() -> None:
    script = (
        "import sys; import llmers_pipelines.registry.mlflow_store, "
        "llmers_pipelines.registry.champion; "
        "print([m for m in ('mlflow', 'torch', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_names_fit_the_store() -> None:
    assert metric_key("ndcg@10") == "ndcg_at_10" and metric_key("a[b]") == "a_b_"
    assert flat_params({"a": {"b": (1, 2)}, "c": None}) == {"a.b": "(1, 2)", "c": "None"}
    assert version_page("m", "3") == "#/models/m/versions/3"
    assert NAME == "llmers-books-sequential"
