"""One ``llmers up`` per home: two daemons on one instance would launch every run twice."""

from __future__ import annotations

import fcntl
import json
import os
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import click

from ..orchestrate.home import HOST, PROCESS, alive, process_tags

NAME = "up.lock"


class UpLock:
    """A file that the process keeps locked while it lives; it says who that is and where it serves.

    The lock ends with the process, however it ends: what a killed one left behind is no obstacle.
    """

    def __init__(self, home: Path, folder: Path) -> None:
        self.home, self.path = home, folder / NAME
        self._file: IO[str] | None = None

    def __enter__(self) -> UpLock:
        file = self.path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise click.ClickException(self._refusal(self.read())) from None
        except OSError:  # a file system without locks: the process id has to do
            if (found := self.read()) and alive(found):
                file.close()
                raise click.ClickException(self._refusal(found)) from None
        self._file = file
        self.tell({})
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        if self._file is not None:
            self._file.truncate(0)  # kept in place: another process may have it open already
            self._file.close()

    def tell(self, addresses: dict[str, str]) -> None:
        """Write down who holds the lock, since when, and what it serves where."""
        assert self._file is not None, "the lock is not held"
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        told = {**process_tags(), "started": started, "addresses": addresses}
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps(told, indent=1) + "\n")
        self._file.flush()

    def read(self) -> dict[str, Any]:
        """Return what the holder wrote; {} where it has not yet."""
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            return {}

    def _refusal(self, found: dict[str, Any]) -> str:
        process = str(found.get(PROCESS, "?")).split("@")[0]
        served = ", ".join(f"{k} {v}" for k, v in found.get("addresses", {}).items())
        place = f" on {found[HOST]}" if HOST in found and found[HOST] != os.uname().nodename else ""
        return (
            f"`llmers up` already runs on {self.home} (process {process}{place}, since "
            f"{found.get('started', '?')}{'; ' + served if served else ''}); stop it with Ctrl-C "
            f"there or `kill {process}`, or give this one another --home"
        )
