"""Time as the parts that wait for an endpoint see it, and the one signal that ends all waiting."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Stop:
    """Why nothing more is begun; the first reason stands."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.reason = ""
        self._lock = threading.Lock()

    def now(self, reason: str) -> None:
        with self._lock:
            if not self.event.is_set():
                self.reason = reason
                self.event.set()

    @property
    def set(self) -> bool:
        return self.event.is_set()


class Clock(Protocol):
    """What tests replace, so that an hour of backoff takes no time."""

    def now(self) -> float:
        """Return seconds that only grow."""
        ...

    def wall(self) -> float:
        """Return seconds since 1970."""
        ...

    def wait(self, seconds: float, stop: Stop) -> None:
        """Wait, at most until ``stop``."""
        ...


class RealClock:
    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def wait(self, seconds: float, stop: Stop) -> None:
        stop.event.wait(seconds)
