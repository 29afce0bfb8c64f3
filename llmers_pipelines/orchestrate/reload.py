"""Code and settings on disk against those that are loaded, and how the location is loaded anew.

A run reads both from disk when it starts; the daemon knows the assets that were loaded. So the two
are brought together before a run is asked for, and what cannot be loaded is told and left alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Any

from ..config import PROJECT, Settings
from .refresh import SETTLED

_CHECK = (
    "from llmers_pipelines.config import load_settings\n"
    "from llmers_pipelines.orchestrate.build import build_plan\n"
    "build_plan(load_settings())\n"
)
_TIMEOUT = 180


class Loaded:
    """What was on disk when the definitions were loaded."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._roots = [*_package_folders()]
        self._then = self._stamps()
        self._judged: tuple[dict[str, tuple[int, int]], str] | None = None
        self._asked: dict[str, tuple[int, int]] | None = None

    def behind(self, origin: Any) -> str:
        """Return "" while disk and memory agree; else bring them together and say what happens.

        ``origin``: Dagster's address of this code location; None where it is not known.
        """
        now = self._stamps()
        if now == self._then:
            return ""
        changed = sorted(n for n in {*now, *self._then} if now.get(n) != self._then.get(n))
        told = f"{changed[0]} changed" + (f" and {len(changed) - 1} more" * (len(changed) > 1))
        newest = max((now[n][0] for n in changed if n in now), default=0)
        if 0 <= time.time() - newest / 1e9 < SETTLED:
            return f"{told}; waiting until it is written"
        if self._judged is None or self._judged[0] != now:
            self._judged = (now, _fault())
        if self._judged[1]:
            return f"{told}, and cannot be loaded, so nothing runs: {self._judged[1]}"
        if self._asked == now or not _ask(origin):
            return f"{told}; reload the code location (Deployment, Reload) or start anew"
        self._asked = now
        return f"{told}; the code location is loaded anew"

    def _stamps(self) -> dict[str, tuple[int, int]]:
        return {path: stamp for path in self._paths() if (stamp := _stamp(path))}

    def _paths(self) -> Iterator[str]:
        places = [Path.cwd() / "llmers.toml", self.settings.home / "llmers.toml",
                  PROJECT / "llmers.toml", self.settings.config_file]  # fmt: skip
        yield from dict.fromkeys(str(p) for p in places if p is not None)
        for root in self._roots:
            if root.endswith(".py"):
                yield root
            for folder, below, files in os.walk(root):
                below[:] = [b for b in below if b != "__pycache__" and not b.startswith(".")]
                yield from (f"{folder}/{f}" for f in files if f.endswith((".py", ".toml")))


def _package_folders() -> list[str]:
    """Return the folders of this package and of those that bring recipes (or their one file)."""
    names = {__name__.partition(".")[0]}
    names |= {e.module.partition(".")[0] for e in metadata.entry_points(group="llmers.recipes")}
    found = []
    for name in sorted(names):
        spec = util.find_spec(name)
        if spec is not None:
            found += spec.submodule_search_locations or ([spec.origin] if spec.origin else [])
    return found


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _fault() -> str:
    """Return why code and settings on disk cannot be loaded, "" where they can."""
    try:
        done = subprocess.run([sys.executable, "-c", _CHECK], capture_output=True, text=True,
                              timeout=_TIMEOUT, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"loading took more than {_TIMEOUT} s"
    lines = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else (lines[-1] if lines else f"exit {done.returncode}")


def _ask(origin: Any) -> bool:
    """Ask the code server for new definitions; False where it is not one that can do so.

    The server of `dagster dev` and `dagster code-server start` starts a new process beside this
    one, and webserver and daemon follow it by themselves.
    """
    from dagster import DagsterError
    from dagster._core.remote_origin import GrpcServerCodeLocationOrigin

    if not isinstance(origin, GrpcServerCodeLocationOrigin):
        return False
    try:
        origin.create_client().reload_code(timeout=_TIMEOUT)
    except DagsterError:
        return False
    return True
