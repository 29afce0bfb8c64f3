"""One line that tells how far a download or a parse is, on a terminal only."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_EVERY = 0.2  # seconds


class Progress:
    """Writes over one line of ``stream`` (default: stderr); silent where that is no terminal."""

    def __init__(self, stream: TextIO | None = None, *, shown: bool | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty() if shown is None else shown
        self._last = 0.0
        self._width = 0
        self._started = time.monotonic()
        self._from = 0

    def start(self, done: int = 0) -> None:
        """Begin a new task; ``done`` bytes of it are there already."""
        self._started, self._from, self._last = time.monotonic(), done, 0.0

    def bytes(self, name: str, done: int, total: int) -> None:
        """Show ``done`` of ``total`` bytes (0: not known) with the rate."""
        if not self._due():
            return
        spent = max(time.monotonic() - self._started, 1e-6)
        share = f"{100 * done / total:3.0f}% of {_size(total)}" if total else _size(done)
        self._write(f"{name}  {share}  {_size((done - self._from) / spent)}/s")

    def say(self, words: str) -> None:
        """Show a step that has no size."""
        if self._shown:
            self._write(words)

    def end(self) -> None:
        """Clear the line."""
        if self._shown and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
            self._width = 0

    def _due(self) -> bool:
        now = time.monotonic()
        if not self._shown or now - self._last < _EVERY:
            return False
        self._last = now
        return True

    def _write(self, words: str) -> None:
        self._stream.write("\r" + words.ljust(self._width))
        self._stream.flush()
        self._width = len(words)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
