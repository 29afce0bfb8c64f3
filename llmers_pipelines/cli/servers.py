"""Several servers as one foreground process: started together, awaited, stopped together."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import click

START_SECONDS, STOP_SECONDS = 180, 20
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux


@dataclass(frozen=True)
class Server:
    """One program. ``ready(port)`` says whether it serves, and raises where it never will."""

    name: str
    command: Sequence[str]
    port: int
    ready: Callable[[int], bool]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Servers:
    """Runs every server in a session of its own, with its output in ``logs/<name>.log``."""

    def __init__(self, servers: Sequence[Server], env: Mapping[str, str], logs: Path) -> None:
        self.servers = servers
        self._env, self._logs = env, logs
        self._children: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self.stop()

    def start(self) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        for server in self.servers:
            with self.log(server).open("wb") as out:
                self._children[server.name] = subprocess.Popen(
                    list(server.command), env=dict(self._env), stdin=subprocess.DEVNULL,
                    stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
                    preexec_fn=lambda: _prepare(libc),
                )  # fmt: skip

    def log(self, server: Server) -> Path:
        return self._logs / f"{server.name.lower()}.log"

    def wait(self, tell: Callable[[Server], None]) -> None:
        """Return when every server serves; ``tell`` hears of each as soon as it does."""
        pending = list(self.servers)
        deadline = time.monotonic() + START_SECONDS
        while pending:
            self._all_alive()
            for server in [s for s in pending if s.ready(s.port)]:
                tell(server)
                pending.remove(server)
            if time.monotonic() > deadline:
                names = ", ".join(s.name for s in pending)
                raise click.ClickException(
                    f"{names} did not answer within {START_SECONDS} s; see {self._logs}"
                )
            time.sleep(0.2)

    def watch(self) -> None:
        """Return never; raise where a server ends by itself."""
        while True:
            self._all_alive()
            time.sleep(0.5)

    def _all_alive(self) -> None:
        for server in self.servers:
            code = self._children[server.name].poll()
            if code is not None:
                tail = self.log(server).read_text(errors="replace").splitlines()[-15:]
                raise click.ClickException(
                    "\n".join([f"{server.name} ended by itself (exit {code}); its last lines, of "
                               f"{self.log(server)}:", *tail])
                )  # fmt: skip

    def stop(self) -> None:
        """End all, gently first; a second interrupt ends them at once."""
        for child in self._children.values():
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        try:
            for child in self._children.values():
                child.wait(timeout=max(0.1, deadline - time.monotonic()))
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
            pass
        for child in self._children.values():
            if child.poll() is None:
                _kill_group(child)


def _prepare(libc: Any) -> None:
    """Set signals that a shell's background job ignores to their default; end with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if libc is not None:
        libc.prctl(_DIES_WITH_PARENT, signal.SIGTERM)


def _kill_group(child: subprocess.Popen) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    child.wait()


def free_port(wanted: int, taken: Sequence[int] = ()) -> int:
    """Return ``wanted`` or the next port that nobody listens on."""
    for port in range(wanted, wanted + 50):
        if port not in taken and _can_bind(port):
            return port
    raise click.ClickException(f"no free port between {wanted} and {wanted + 49}; pass another")


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
