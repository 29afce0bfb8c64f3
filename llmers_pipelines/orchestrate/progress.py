"""What a running step tells: a line and its figures, at growing intervals, so that a long run
stays readable and a short one says nothing twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

FIRST, GROWTH, LONGEST = 2.0, 1.5, 60.0  # seconds
EVENT_AFTER = 10.0  # events stay in the asset's history: only steps that last have any

Figures = Mapping[str, float]


@dataclass
class Reporter:
    """``line(text)`` for the log; ``event(text, figures)`` for the history of the asset."""

    line: Callable[[str], None]
    event: Callable[[str, Figures], None] = lambda text, figures: None
    clock: Callable[[], float] = time.monotonic
    _began: float = field(init=False)
    _next: float = field(init=False)
    _gap: float = FIRST

    def __post_init__(self) -> None:
        self._began = self.clock()
        self._next = self._began + self._gap

    @property
    def due(self) -> bool:
        """Whether it is time for another line."""
        return self.clock() >= self._next

    def __call__(self, tell: Callable[[], tuple[str, Figures]]) -> None:
        """Say what ``tell`` returns, where it is time."""
        if not self.due:
            return
        now = self.clock()
        self._gap = min(LONGEST, self._gap * GROWTH)
        self._next = now + self._gap
        text, figures = tell()
        self.line(text)
        if now - self._began >= EVENT_AFTER:
            self.event(text, figures)


def left(seconds: float) -> str:
    """Return a time that is left, in words."""
    if seconds < 90:
        return f"about {seconds:.0f} s left"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min left"
    return f"about {seconds / 3600:.1f} h left"


def asked(name: str, bar: Any, currency: str = "") -> tuple[str, Figures]:
    """Tell of a run of prompts; ``bar``: ``llm.progress.Progress``."""
    money = f", {bar.money:.4g} {currency}".rstrip() if bar.money else ""
    text = (
        f"{name}: {bar.done:,} of {bar.total:,} answers, {bar.rows_per_second:.1f} rows/s, "
        f"{bar.tokens:,} tokens{money}, {left(bar.seconds_left)}"
    )
    return text, {
        "rows_done": bar.done, "rows_total": bar.total, "seconds_left": round(bar.seconds_left, 1),
        "rows_per_second": round(bar.rows_per_second, 2), "tokens": bar.tokens, "money": bar.money,
    }  # fmt: skip


def encoded(name: str, done: int, total: int, seconds: float) -> tuple[str, Figures]:
    """Tell of texts that are being encoded."""
    speed = done / max(1e-9, seconds)
    rest = (total - done) / max(1e-9, speed)
    text = f"{name}: {done:,} of {total:,} texts encoded, {speed:.1f} rows/s, {left(rest)}"
    return text, {
        "rows_done": done, "rows_total": total, "rows_per_second": round(speed, 2),
        "seconds_left": round(rest, 1),
    }  # fmt: skip


def tuned(name: str, epoch: Mapping[str, Any], seconds: float) -> tuple[str, Figures]:
    """Tell of an epoch of tuning; ``seconds`` since this run took it up."""
    number, most = int(epoch["epoch"]), int(epoch["epochs"])
    rest = float(epoch["seconds"]) * (most - number)
    text = f"{name}: epoch {number} of {most}, loss {epoch['loss']:.4f}, {left(rest)}"
    return text, {"epoch": number, "loss": float(epoch["loss"]), "seconds": round(seconds, 1),
                  "seconds_left": round(rest, 1)}  # fmt: skip


def trained(
    name: str, epoch: Mapping[str, Any], best: tuple[int, float] | None, most: int, seconds: float
) -> tuple[str, Figures]:
    """Tell of an epoch. ``best``: (epoch, validation metric) so far; ``most``: bound of epochs."""
    number = int(epoch["epoch"])
    rest = seconds / max(1, number) * max(0, most - number)
    parts = [f"{name}: epoch {number} of at most {most}"]
    figures: dict[str, float] = {"epoch": number, "seconds_left_at_most": round(rest, 1)}
    for key, told in (("train_loss", "loss"), ("valid", "validation")):
        if epoch.get(key) is not None:
            parts.append(f"{told} {epoch[key]:.4f}")
            figures[key] = float(epoch[key])
    if best is not None:
        parts.append(f"best {best[1]:.4f} at epoch {best[0]}")
    parts.append(f"{left(rest)} if it does not stop earlier" if rest else "done")
    return ", ".join(parts), figures
