"""Circuit breaker: an endpoint that fails again and again is left alone, probed, and given up."""

from __future__ import annotations

import threading

from .clock import Clock, RealClock, Stop

_LOOK_SECONDS = 0.5  # how often a waiting worker looks whether the probe has come back


class Breaker:
    """Closed -> open after ``failures`` in a row -> half-open (one probe) -> closed, or open again.

    Each failed probe doubles the cool-down; after ``probes`` of them the endpoint is given up. A
    probe of which nothing is heard for ``patience`` seconds is held for lost: another one goes.
    """

    def __init__(
        self, *, failures: int = 10, cooldown: float = 15.0, probes: int = 4,
        patience: float = 600.0, clock: Clock | None = None,
    ) -> None:  # fmt: skip
        self.failures = failures
        self.cooldown = cooldown
        self.probes = probes
        self.patience = patience
        self._clock = clock or RealClock()
        self._lock = threading.Lock()
        self._in_a_row = 0
        self._opened = False
        self._until = 0.0
        self._probing = False
        self._probe_sent = 0.0
        self._failed_probes = 0

    @property
    def state(self) -> str:
        if not self._opened:
            return "closed"
        return "half-open" if self._probing else "open"

    def enter(self, stop: Stop) -> bool:
        """Wait until a call may be sent; False once ``stop`` is set."""
        while not stop.set:
            with self._lock:
                if not self._opened:
                    return True
                now = self._clock.now()
                left = self._until - now
                lost = self._probing and now - self._probe_sent >= self.patience
                if left <= 0 and (lost or not self._probing):
                    self._probing = True
                    self._probe_sent = now
                    return True
                wait = _LOOK_SECONDS if self._probing else left
            self._clock.wait(wait, stop)
        return False

    def success(self) -> None:
        """Note that the endpoint answered, whatever it said."""
        with self._lock:
            self._in_a_row = self._failed_probes = 0
            self._opened = self._probing = False

    def failure(self, reason: str, stop: Stop) -> None:
        """Note a call that failed by the endpoint's fault; sets ``stop`` where it is given up."""
        with self._lock:
            self._in_a_row += 1
            if self._opened:
                if not self._probing:
                    return  # sent before the breaker opened
                self._probing = False
                self._failed_probes += 1
            elif self._in_a_row < self.failures:
                return
            self._opened = True
            self._until = self._clock.now() + self.cooldown * 2**self._failed_probes
            failed, given_up = self._in_a_row, self._failed_probes >= self.probes
        if given_up:
            stop.now(f"the endpoint failed {failed} times in a row; the last time: {reason}")
