"""A killed command must not hold a pool slot: the next run would wait for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg

from llmers_pipelines.orchestrate.home import process_tags, release_dead_runs

_HOLD = """
import time, dagster as dg
from llmers_pipelines.orchestrate.home import process_tags
@dg.asset(pool="gpu")
def slow():
    open("started", "w").close()
    time.sleep(60)
dg.materialize([slow], instance=dg.DagsterInstance.get(), tags=process_tags())
"""


def test_a_killed_run_is_ended_and_its_slot_is_free(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text(
        "telemetry: {enabled: false}\nconcurrency:\n  pools: {granularity: op, default_limit: 1}\n"
    )
    child = subprocess.Popen([sys.executable, "-c", _HOLD], cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    instance = dg.DagsterInstance.get()
    claimed = instance.event_log_storage.get_concurrency_info("gpu")
    assert claimed.active_slot_count == 1, "the killed run should still hold its slot"
    assert len(release_dead_runs(instance)) == 1
    assert instance.event_log_storage.get_concurrency_info("gpu").active_slot_count == 0
    assert instance.get_runs()[0].status == dg.DagsterRunStatus.FAILURE
    assert release_dead_runs(instance) == []


def test_a_living_run_is_left_alone(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.create_run_for_job(
            dg.GraphDefinition(name="g", node_defs=[]).to_job(),
            status=dg.DagsterRunStatus.STARTED, tags=process_tags(),
        )  # fmt: skip
        assert release_dead_runs(instance) == []
