"""How fast an endpoint may be asked: token buckets, cool-downs, backoff, Retry-After."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from .clock import Clock, RealClock, Stop

BURST_SECONDS = 5.0  # of the allowance that may be used at once
SPREAD_SHARE, SPREAD_SECONDS = 0.25, 10.0  # of a pause, and at most


class Bucket:
    """Refills evenly at ``per_minute``; 0 = no bound.

    A take that exceeds what is there goes into debt and says how long to wait for it, so waiters
    are served in the order in which they came, and one take may exceed the whole bucket.
    """

    def __init__(self, per_minute: float, clock: Clock) -> None:
        self._rate = per_minute / 60
        self._room = max(1.0, self._rate * BURST_SECONDS)
        self._level = self._room
        self._clock = clock
        self._at = clock.now()

    def take(self, amount: float) -> float:
        """Take ``amount`` and return the seconds until it is there."""
        if not self._rate:
            return 0.0
        self._refill()
        self._level -= amount
        return max(0.0, -self._level / self._rate)

    def give_back(self, amount: float) -> None:
        """Return what was taken and not used; negative where more was used."""
        if self._rate:
            self._refill()
            self._level = min(self._room, self._level + amount)

    def _refill(self) -> None:
        now = self._clock.now()
        self._level = min(self._room, self._level + (now - self._at) * self._rate)
        self._at = now


class Rate:
    """Requests and tokens per minute, and cool-downs: shared by all workers on one endpoint."""

    def __init__(
        self, requests_per_minute: float, tokens_per_minute: float, clock: Clock | None = None,
        draw: random.Random | None = None,
    ) -> None:  # fmt: skip
        self.clock = clock or RealClock()
        self._draw = draw
        self._requests = Bucket(requests_per_minute, self.clock)
        self._tokens = Bucket(tokens_per_minute, self.clock)
        self._lock = threading.Lock()
        self._until = 0.0
        self._span = 0.0

    def acquire(self, tokens: float, stop: Stop) -> bool:
        """Wait until a request of ``tokens`` may be sent; False once ``stop`` is set.

        After a pause each worker waits a little longer, by chance: else all would ask at one
        moment, and be turned away again.
        """
        with self._lock:
            wait = max(self._requests.take(1), self._tokens.take(tokens))
        while not stop.set:
            pause = self._until - self.clock.now()
            if pause > 0:
                pause += (self._draw or random).uniform(0, self._span)
            wait = max(wait, pause)
            if wait <= 0:
                return True
            self.clock.wait(wait, stop)
            wait = 0.0
        return False

    def correct(self, taken: float, used: float) -> None:
        """Replace an estimate by what was used."""
        with self._lock:
            self._tokens.give_back(taken - used)

    def pause(self, seconds: float) -> None:
        """Let no worker send before ``seconds`` are over: the endpoint has asked for it."""
        with self._lock:
            until = self.clock.now() + seconds
            if until > self._until:
                self._until, self._span = until, spread(seconds)


def spread(seconds: float) -> float:
    """Return over how many seconds workers are spread that wait for the same moment."""
    return min(SPREAD_SECONDS, SPREAD_SHARE * seconds)


_shared: dict[tuple[str, str, float, float], Rate] = {}
_sharing = threading.Lock()


def shared_rate(
    endpoint: str, model: str, requests_per_minute: float, tokens_per_minute: float
) -> Rate:
    """Return this process's one rate for a model on an endpoint."""
    key = (endpoint, model, requests_per_minute, tokens_per_minute)
    with _sharing:
        return _shared.setdefault(key, Rate(requests_per_minute, tokens_per_minute))


def backoff(failures: int, *, base: float = 1.0, most: float = 60.0,
            draw: random.Random | None = None) -> float:  # fmt: skip
    """Return seconds to wait after so many failures in a row: uniform in [0, base 2^(n-1)].

    "Full jitter" of M. Brooker, Exponential Backoff And Jitter (2015).
    """
    span = min(most, base * 2 ** min(failures - 1, 30))
    return (draw or random).uniform(0, span)


def retry_after(headers: Mapping[str, str], wall: float) -> float | None:
    """Return the seconds that the endpoint asks to wait: milliseconds, seconds or an HTTP date.

    ``headers`` has lower-case names. None where it asks for nothing that can be read.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        try:
            seconds = float(text) / unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        when = parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, when.timestamp() - wall)
    except (TypeError, ValueError, OverflowError):
        return None
