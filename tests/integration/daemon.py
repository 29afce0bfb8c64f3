"""Dagster's daemon and a code server as a person has them, without a webserver, on one home."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import dagster as dg


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _default_signals() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Daemon:
    """A code server and a daemon over the home that ``environment`` names."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.environment, self.folder = dict(environment), folder
        self.children: dict[str, subprocess.Popen] = {}
        self.instance: dg.DagsterInstance

    def __enter__(self) -> Daemon:
        self.port = free_port()
        workspace = self.folder / "workspace.yaml"
        workspace.write_text(
            f"load_from:\n  - grpc_server:\n      host: 127.0.0.1\n      port: {self.port}\n"
            "      location_name: llmers\n"
        )
        tools = Path(sys.executable).parent
        self._start("code", [
            str(tools / "dagster"), "code-server", "start", "-m", "llmers_pipelines.definitions",
            "--location-name", "llmers", "-h", "127.0.0.1", "-p", str(self.port),
        ])  # fmt: skip
        try:
            self.wait(self._answers, "the code server answers", 120)
            self._start("daemon", [str(tools / "dagster-daemon"), "run", "-w", str(workspace)])
            self.instance = dg.DagsterInstance.from_config(self.environment["DAGSTER_HOME"])
        except BaseException:
            self._stop()
            raise
        return self

    def _start(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.log").open("w") as log:
            self.children[name] = subprocess.Popen(
                command, env=self.environment, cwd=self.folder, stdout=log,
                stderr=subprocess.STDOUT, preexec_fn=_default_signals,
            )  # fmt: skip

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def wait(self, until: Callable[[], Any], what: str, seconds: float) -> Any:
        """Return what ``until`` gives as soon as it is true; fail with the logs after a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := until():
                return found
            for name, child in self.children.items():
                assert child.poll() is None, f"{name} ended:\n{self.log(name)}"
            time.sleep(0.3)
        logs = "\n".join(f"--- {name}\n{self.log(name)}" for name in self.children)
        raise AssertionError(f"not within {seconds} s: {what}\n{logs}")

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()[-3000:]

    def runs(self) -> list[dg.DagsterRun]:
        """Return the runs that the refresh sensor asked for, newest first."""
        return [r for r in self.instance.get_runs() if "llmers/refresh" in r.tags]

    def ticks(self, name: str = "refresh") -> list[Any]:
        """Return the last ticks of a sensor, newest first."""
        for state in self.instance.all_instigator_state():
            if state.instigator_name == name:
                return list(self.instance.get_ticks(
                    state.instigator_origin_id, state.selector_id, limit=25
                ))  # fmt: skip
        return []

    def done(self, before: int, seconds: float = 180) -> dg.DagsterRun:
        """Return the next refresh run after the first ``before`` ones, when it is over."""

        def over() -> dg.DagsterRun | None:
            runs = self.runs()
            return runs[0] if len(runs) > before and runs[0].is_finished else None

        return self.wait(over, "a refresh run is over", seconds)

    def quiet(self, ticks: int = 3, seconds: float = 60) -> None:
        """Wait until the sensor has looked ``ticks`` times more."""

        def stamp() -> float:
            found = self.ticks()
            return found[0].timestamp if found else 0.0

        for _ in range(ticks):
            before = stamp()
            self.wait(lambda before=before: stamp() > before, "the sensor looks again", seconds)

    def cpu_seconds(self) -> float:
        """Return the processor time of both processes and of all below them."""
        return sum(_cpu(pid) for pid in self.processes())

    def processes(self) -> set[int]:
        """Return the ids of both processes and of all below them."""
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    told = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                parents[int(entry.name)] = int(told[1])
        found = {child.pid for child in self.children.values()}
        while more := {p for p, parent in parents.items() if parent in found} - found:
            found |= more
        return found

    def _stop(self) -> None:
        for child in reversed(self.children.values()):
            if child.poll() is None:
                child.terminate()
        for child in self.children.values():
            try:
                child.wait(timeout=30)
            except subprocess.TimeoutExpired:
                child.kill()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self._stop()
        self.instance.dispose()


def _cpu(pid: int) -> float:
    try:
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")
