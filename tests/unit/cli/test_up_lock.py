"""One `llmers up` per home, whatever became of the one before; ports that are free."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from llmers_pipelines.cli.servers import Server, Servers, free_port
from llmers_pipelines.cli.up_lock import UpLock
from llmers_pipelines.orchestrate.home import process_tags

_HOLD = """
import sys, time
from pathlib import Path
from llmers_pipelines.cli.up_lock import UpLock
with UpLock(Path(sys.argv[1]), Path(sys.argv[1])) as lock:
    lock.tell({"Dagster": "http://127.0.0.1:3999"})
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    child = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.wait()


def test_a_second_start_is_refused_with_what_runs_and_how_to_stop_it(
    tmp_path: Path, holder: subprocess.Popen
) -> None:
    with pytest.raises(click.ClickException) as refused, UpLock(tmp_path, tmp_path):
        pass
    text = refused.value.message
    assert str(tmp_path) in text and "Dagster http://127.0.0.1:3999" in text
    assert f"process {holder.pid}" in text and f"kill {holder.pid}" in text


def test_a_killed_one_is_no_obstacle(tmp_path: Path, holder: subprocess.Popen) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert json.loads((tmp_path / "up.lock").read_text()), "it had no time to say goodbye"
    with UpLock(tmp_path, tmp_path) as lock:
        assert lock.read().items() >= process_tags().items()
    with UpLock(tmp_path, tmp_path):  # and after an orderly end
        pass


def test_a_taken_port_is_left_alone() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert free_port(port) > port
        assert free_port(port, (port + 1,)) > port + 1


def serve(code: str, tmp_path: Path) -> Servers:
    server = Server("Echo", (sys.executable, "-c", code), 1, lambda port: True)
    return Servers([server], dict(os.environ), tmp_path)


def test_a_server_that_ends_by_itself_is_told_with_its_last_words(tmp_path: Path) -> None:
    with serve("print('no database'); raise SystemExit(3)", tmp_path) as group:
        group.start()
        time.sleep(0.5)
        with pytest.raises(click.ClickException, match=r"(?s)Echo ended .*exit 3.*no database"):
            group.watch()


def test_stopping_ends_what_a_server_started_and_what_ignores_the_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmers_pipelines.cli.servers.STOP_SECONDS", 1)
    stubborn = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(c.pid, flush=True)\ntime.sleep(60)"
    )
    with serve(stubborn, tmp_path) as group:
        group.start()
        deadline = time.monotonic() + 10
        while not (text := (tmp_path / "echo.log").read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
    deadline = time.monotonic() + 10
    while _lives(int(text)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _lives(int(text))


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
