"""Buckets, cool-downs, backoff, Retry-After and the breaker, on a clock without waits."""

from __future__ import annotations

import random
import threading
import time
from queue import SimpleQueue

import pytest
from endpoint_kit import QuickClock

from llmers_pipelines.llm.breaker import Breaker
from llmers_pipelines.llm.clock import RealClock, Stop
from llmers_pipelines.llm.rate import BURST_SECONDS, Rate, backoff, retry_after, shared_rate
from llmers_pipelines.llm.workers import stream

WALL = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


def test_requests_per_minute_by_hand() -> None:
    clock = QuickClock()
    rate = Rate(60, 0, clock)
    for _ in range(100):
        assert rate.acquire(1e9, Stop())
    assert clock.time == pytest.approx(100 - BURST_SECONDS), "a burst of 5 s, then one a second"


def test_tokens_per_minute_with_correction() -> None:
    clock = QuickClock()
    rate = Rate(0, 6000, clock)  # 100 a second, 500 at once
    assert rate.acquire(500, Stop()) and clock.time == 0
    assert rate.acquire(1000, Stop()) and clock.time == pytest.approx(10), "more than the bucket"
    rate.correct(1000, 400)
    assert rate.acquire(500, Stop()) and clock.time == pytest.approx(10), "600 came back, 500 fit"
    assert rate.acquire(100, Stop()) and clock.time == pytest.approx(11)


def test_a_pause_holds_everybody_and_a_stop_ends_it() -> None:
    clock = QuickClock()
    rate = Rate(0, 0, clock)
    rate.pause(30)
    rate.pause(10)
    assert rate.acquire(1, Stop()) and 30 <= clock.time <= 37.5
    stop = Stop()
    stop.now("first")
    stop.now("second")
    assert not rate.acquire(1, stop) and stop.reason == "first"


@pytest.mark.parametrize(("pause", "span"), [(20.0, 5.0), (1000.0, 10.0), (0.1, 0.025)])
def test_workers_come_back_from_a_pause_one_by_one(pause: float, span: float) -> None:
    ends = []
    for worker in range(200):
        clock = QuickClock()
        rate = Rate(0, 0, clock, random.Random(worker))
        rate.pause(pause)
        assert rate.acquire(1, Stop()) and rate.acquire(1, Stop()), "the second one waits no more"
        ends.append(clock.time)
    assert pause <= min(ends) < pause + 0.05 * span, "never before it was asked for"
    assert pause + 0.95 * span < max(ends) <= pause + span
    assert len({round(e, 9) for e in ends}) == 200


def test_workers_of_one_process_share_a_rate() -> None:
    one = shared_rate("http://a/v1", "m", 600, 0)
    assert one is shared_rate("http://a/v1", "m", 600, 0)
    assert one is not shared_rate("http://b/v1", "m", 600, 0)
    began, stop = time.monotonic(), Stop()
    workers = [
        threading.Thread(target=lambda: [one.acquire(1, stop) for _ in range(9)]) for _ in range(6)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert time.monotonic() - began >= 0.3, "54 requests: 50 at once, then 10 a second"


def test_backoff_is_full_jitter() -> None:
    draw = random.Random(3)
    for failures, span in ((1, 1), (2, 2), (4, 8), (30, 60), (5000, 60)):
        seen = [backoff(failures, draw=draw) for _ in range(400)]
        assert 0 <= min(seen) < 0.05 * span and 0.95 * span < max(seen) <= span
        assert sum(seen) / 400 == pytest.approx(span / 2, rel=0.1)


@pytest.mark.parametrize(("headers", "seconds"), [
    ({"retry-after": "7"}, 7.0), ({"retry-after": "1.5"}, 1.5), ({"retry-after": "0"}, 0.0),
    ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
    ({"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT"}, 60.0),
    ({"retry-after": "Tue, 14 Nov 2023 22:00:00 GMT"}, 0.0),
    ({"retry-after": "-3"}, None), ({"retry-after": "nan"}, None), ({"retry-after": "soon"}, None),
    ({"retry-after-ms": "x", "retry-after": "2"}, 2.0), ({}, None),
])  # fmt: skip
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, WALL) == seconds


def test_the_breaker_opens_probes_and_closes() -> None:
    clock, stop = QuickClock(), Stop()
    breaker = Breaker(failures=3, cooldown=10, probes=3, clock=clock)
    for _ in range(2):
        breaker.failure("x", stop)
    breaker.success()
    for _ in range(3):
        assert breaker.state == "closed"
        breaker.failure("x", stop)
    assert breaker.state == "open"
    assert breaker.enter(stop) and clock.time == 10 and breaker.state == "half-open"
    others: list[bool] = []
    second = threading.Thread(target=lambda: others.append(breaker.enter(stop)))
    second.start()
    time.sleep(0.02)
    assert others == [], "one probe at a time"
    breaker.success()
    second.join()
    assert others == [True] and breaker.state == "closed"


def test_the_breaker_gives_up_after_its_probes() -> None:
    clock, stop = QuickClock(), Stop()
    breaker = Breaker(failures=1, cooldown=10, probes=3, clock=clock)
    breaker.failure("down", stop)
    for _ in range(3):
        assert not stop.set and breaker.enter(stop)
        breaker.failure("down", stop)
    assert clock.time == 10 + 20 + 40 and stop.reason.endswith("the last time: down")
    assert not breaker.enter(stop)


def test_a_fault_in_a_worker_comes_after_what_the_others_made() -> None:
    def work(n: int) -> int | None:
        if n == 2:
            raise KeyError("own fault")
        time.sleep(0.02)
        return n if n % 2 else None

    seen = []
    with pytest.raises(KeyError):
        for n in stream(work, range(100), workers=4, stop=Stop()):
            seen.append(n)
    assert set(seen) >= {1, 3} and len(seen) < 10


def test_an_interrupt_keeps_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Interrupted:
        def __init__(self) -> None:
            self._queue: SimpleQueue[object] = SimpleQueue()
            self.put = self._queue.put

        def get(self) -> object:
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return self._queue.get()

    monkeypatch.setattr("llmers_pipelines.llm.workers.SimpleQueue", Interrupted)
    seen = []
    with pytest.raises(KeyboardInterrupt):
        for n in stream(lambda n: n, range(100), workers=3, stop=Stop()):
            seen.append(n)
    assert len(seen) == 4, "one before, and the three that were under way"


def test_the_real_clock_is_ended_by_a_stop() -> None:
    clock, stop = RealClock(), Stop()
    threading.Timer(0.05, stop.now, ["enough"]).start()
    began = clock.now()
    clock.wait(30, stop)
    assert clock.now() - began < 5 and abs(clock.wall() - time.time()) < 5
