"""The registered model behind HTTP servers of its own, as a deployment runs them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import llmers_pipelines
from llmers_pipelines.config import Settings
from llmers_pipelines.data.training import IdMap, TrainingData
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.models.served import export
from llmers_pipelines.registry.bundle import write_bundle
from llmers_pipelines.registry.mlflow_store import MlflowStore, mlflow_environment, model_name
from llmers_pipelines.registry.scorer import Scorer

pytestmark = pytest.mark.slow
N = 30
NAME = model_name("books", "sequential")
PATIENCE = 120  # seconds until a server must answer, on a busy machine


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(1, 6), 4)
    data = TrainingData(
        "sequential", IdMap(tuple(f"u{i}" for i in range(1, 6))),
        IdMap(tuple(f"b{i}" for i in range(1, N + 1))), user, rng.integers(1, N + 1, len(user)),
        np.arange(len(user)), np.tile(np.array([0, 0, 1, 2], np.int8), 5),
    )  # fmt: skip
    net = SASRec(dim=8, inner=16, max_len=10, table_std=0.5).build(data, 0)
    items = pa.table({"item_id": data.items.ids, "title": [f"Book {i}" for i in data.items.ids]})
    config, arrays = export(net.eval())
    return write_bundle(
        tmp_path_factory.mktemp("bundle") / "b", config=config, arrays=arrays, data=data,
        items=items, meta={"dataset": "books", "model": "sasrec"},
    )  # fmt: skip


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def server(arguments: list[str], settings: Settings, ready: str) -> Iterator[None]:
    """Run ``mlflow ...`` in a process group of its own until ``ready`` answers, then stop it."""
    tools = Path(sys.executable).parent  # mlflow starts uvicorn by name
    environment = {**os.environ, **mlflow_environment(settings)}
    environment["PATH"] = f"{tools}{os.pathsep}{environment['PATH']}"
    environment["PYTHONPATH"] = str(Path(llmers_pipelines.__file__).parents[1])
    log = (settings.home / "server.log").open("ab")
    process = subprocess.Popen(
        [str(tools / "mlflow"), *arguments], env=environment, cwd=settings.home, stdout=log,
        stderr=log, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(ready, timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                said = (settings.home / "server.log").read_text()[-2000:]
                assert process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.25)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        log.close()


def post(address: str, document: dict) -> list[dict]:
    request = urllib.request.Request(
        address, json.dumps(document).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())["predictions"]


def test_champion_answers_over_http(bundle: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    store = MlflowStore.from_settings(settings)
    version = store.register_bundle(bundle, NAME)
    store.set_champion(NAME, version)
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    arguments = ["models", "serve", "-m", f"models:/{NAME}@champion", "--env-manager", "local",
                 "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
    with server(arguments, settings, f"{address}/ping"):
        rows = post(f"{address}/invocations", {
            "dataframe_records": [{"user_id": "u2"}, {"user_id": "x", "history": ["b1", "b4"]}],
            "params": {"k": 4},
        })  # fmt: skip
        took = []
        for _ in range(5):
            start = time.perf_counter()
            post(f"{address}/invocations", {"dataframe_records": [{"user_id": "u2"}]})
            took.append(time.perf_counter() - start)
        for wrong in ({"who": "u2"}, {"user_id": "u2", "history": "b1"}):
            with pytest.raises(urllib.error.HTTPError) as refused:
                post(f"{address}/invocations", {"dataframe_records": [wrong]})
            assert refused.value.code == 400
    print(f"served request: best {min(took) * 1e3:.0f} ms")
    scorer = Scorer.load(bundle)
    known, visitor = scorer.recommend("u2", 4), scorer.recommend("x", 4, history=["b1", "b4"])
    assert [r["item_id"] for r in rows] == [
        i["item_id"] for i in [*known["items"], *visitor["items"]]
    ]  # fmt: skip
    np.testing.assert_allclose(
        [r["score"] for r in rows], [i["score"] for i in [*known["items"], *visitor["items"]]],
        rtol=1e-5,
    )  # fmt: skip
    assert [r["fallback"] for r in rows] == [""] * 4 + ["history"] * 4
    assert {r["version"] for r in rows} == {version}


def test_a_tracking_server_sends_the_bundle_once(bundle: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    arguments = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
                 "--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}",
                 "--artifacts-destination", str(tmp_path / "kept")]  # fmt: skip
    with server(arguments, settings, f"{address}/health"):
        store = MlflowStore(address)
        version = store.register_bundle(bundle, NAME)
        store.set_champion(NAME, version)
        cache = tmp_path / "cache"
        found, folder = store.champion(NAME, cache=cache)
        assert found == version and cache in folder.parents
        expected = Scorer.load(bundle).recommend("u2", 3)["items"]
        assert Scorer.load(folder).recommend("u2", 3)["items"] == expected
        written = (folder / "config.json").stat().st_mtime_ns
        assert store.champion(NAME, cache=cache)[1] == folder
        assert (folder / "config.json").stat().st_mtime_ns == written
