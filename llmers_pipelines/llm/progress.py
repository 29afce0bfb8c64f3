"""What a person sees while a run asks: a bar on a terminal, sparse lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

Report = Callable[[int, int, int], None]
Watch = Callable[["Progress"], None]
LINE_SECONDS = 30.0  # between two lines of a log


class Progress:
    """Counts answers and tokens; a context manager.

    On a terminal a bar with rows/s, tokens and the time left; elsewhere a line at most every half
    minute, and nothing for runs that are shorter. ``report`` is called instead with (done, total,
    tokens) where it is a function; False shows nothing. ``watch`` is called as well with each
    answer, whatever is shown.
    """

    def __init__(
        self, title: str, report: Report | bool | None = None, stream: TextIO | None = None,
        watch: Watch | None = None,
    ) -> None:  # fmt: skip
        self.title = title
        self._report = report if callable(report) else None
        self._silent = report is False or callable(report)
        self.total = 0
        self.done = 0
        self.tokens = 0
        self.money = 0.0
        self._watch = watch
        self._stream = stream or sys.stderr
        self._began = self._told = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        if self._bar is not None:
            self._bar.stop()
        elif self._told > self._began:
            self._line()

    def more(self, requests: int) -> None:
        """Raise the total by ``requests`` that are about to be asked."""
        self.total += requests
        if self._bar is None and not self._silent and self._stream.isatty():
            self._bar = _bar(self._stream)
            self._bar.start()
            self._task = self._bar.add_task(self.title, speed="", tokens="0")
        if self._bar is not None:
            self._bar.update(self._task, total=self.total)

    def advance(self, tokens: int, money: float = 0.0) -> None:
        """Count one answer of ``tokens`` tokens; ``money``: what all of them cost so far."""
        self.done += 1
        self.tokens += tokens
        self.money = money
        if self._watch is not None:
            self._watch(self)
        if self._report is not None:
            self._report(self.done, self.total, self.tokens)
        if self._bar is not None:
            speed = f"{self.rows_per_second:.1f} rows/s"
            self._bar.update(self._task, advance=1, speed=speed, tokens=f"{self.tokens:,}")
        elif not self._silent and time.monotonic() - self._told >= LINE_SECONDS:
            self._told = time.monotonic()
            self._line()

    @property
    def rows_per_second(self) -> float:
        return self.done / max(1e-9, time.monotonic() - self._began)

    @property
    def seconds_left(self) -> float:
        """Return how long the rest takes at this pace."""
        return (self.total - self.done) / max(1e-9, self.rows_per_second)

    def _line(self) -> None:
        self._stream.write(
            f"{self.title}: {self.done} of {self.total} rows, {self.rows_per_second:.1f} rows/s, "
            f"{self.tokens:,} tokens, about {self.seconds_left:.0f} s left\n"
        )
        self._stream.flush()


def _bar(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"), TextColumn("{task.fields[tokens]} tokens"),
        TimeRemainingColumn(),
    )  # fmt: skip
    return RichProgress(*columns, console=Console(file=stream))
