"""``LLMERS_HOME``: folders, Dagster's instance and the data sets as its partitions."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from ..config import PROJECT, Settings
from ..gpu import POOL


def ensure_home(settings: Settings) -> None:
    """Create the folders of ``LLMERS_HOME`` and Dagster's settings where they are missing."""
    for folder in (settings.dagster_home, settings.data, settings.mlflow_folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name in ("dagster.yaml", "workspace.yaml"):
        target = settings.dagster_home / name
        source = PROJECT / "dagster_home" / name
        if not target.exists() and source.is_file():
            shutil.copyfile(source, target)
    settings.apply_environment()


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """Return the persistent instance with every known data set as a partition."""
    from ..data.registry import list_datasets

    ensure_home(settings)
    instance = dg.DagsterInstance.get()
    names = [d["name"] for d in list_datasets(settings.home)]
    known = set(instance.get_dynamic_partitions("dataset"))
    missing = [n for n in names if n not in known]
    if missing:
        instance.add_dynamic_partitions("dataset", missing)
    release_dead_runs(instance)
    _set_pools(instance, settings)
    return instance


def _set_pools(instance: dg.DagsterInstance, settings: Settings) -> None:
    """Let the pools be seen before the first run; their limits stay those that were set there."""
    storage = instance.event_log_storage
    known = storage.get_concurrency_keys()
    for pool in {POOL, "llm"} - set(known):
        storage.initialize_concurrency_limit_to_default(pool)
    if settings.gpu.slots:
        storage.set_concurrency_slots(POOL, settings.gpu.slots)


PROCESS, HOST = "llmers/process", "llmers/host"
_LAUNCHED = ".dagster/grpc_info"  # the code server that a run was launched in


def process_tags() -> dict[str, str]:
    """Return the tags by which a later command can tell whether this process still lives."""
    return {PROCESS: _stamp(os.getpid()), HOST: socket.gethostname()}


def release_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """End the runs whose process on this machine is gone, and free their pool slots.

    A killed command never says goodbye: its run stays started, and its slot of a pool of one would
    make every later run wait for ever.
    """
    running = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
    dead = []
    for run in instance.get_runs(filters=running):
        if PROCESS not in run.tags or run.tags.get(HOST) != socket.gethostname():
            continue
        if not alive(run.tags):
            instance.report_run_failed(run, "the process of this run has ended")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            dead.append(run.run_id)
    return dead


def release_orphans(instance: dg.DagsterInstance) -> list[str]:
    """End the runs that a daemon of this home launched and that outlived it only in the records.

    For a process that has just become the only one to launch runs here: whatever the former one
    launched ended with it.
    """
    unfinished = dg.RunsFilter(statuses=[
        dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELING,
    ])  # fmt: skip
    ended = []
    for run in instance.get_runs(filters=unfinished):
        if _LAUNCHED in run.tags and PROCESS not in run.tags:
            instance.report_run_failed(run, "it was running when `llmers up` ended")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            ended.append(run.run_id)
    return ended


def alive(tags: Mapping[str, str]) -> bool:
    """Say whether the process that wrote ``process_tags`` on this machine still lives."""
    stamp = tags.get(PROCESS, "0@?")
    return _stamp(int(stamp.split("@")[0])) == stamp


def _stamp(pid: int) -> str:
    """Return ``pid@start``: a number that is given to another process later is not the same one."""
    try:
        start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return f"{pid}@gone"
        except PermissionError:
            pass
        start = "?"  # no /proc: the process lives, its start is not known
    return f"{pid}@{start}"
