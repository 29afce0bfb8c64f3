"""The ledger: bounds that no interleaving exceeds, holds that a crash leaves standing."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmers_pipelines.config import Settings
from llmers_pipelines.llm.budget import Budget
from llmers_pipelines.llm.ledger import Hold, Ledger, Refusal, Use
from llmers_pipelines.llm.meter import Meter, ledger_path, nanos, open_meter
from llmers_pipelines.llm.protocol import EngineError
from llmers_pipelines.prices import Price

DAY, NONE = "2026-01-01", Use()


def hold(ledger: Ledger, most: Use, run: str = "a", **bounds: Use) -> Any:
    bounds = {"of_run": NONE, "of_day": NONE} | bounds
    return ledger.hold(DAY, run, "m", most, **bounds)


def test_held_and_settled_by_hand(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "spending.sqlite")
    one, two = hold(ledger, Use(1, 100, 1000)), hold(ledger, Use(1, 50, 500), run="b")
    assert ledger.total(day=DAY) == Use(2, 150, 1500) and ledger.total(run="a") == Use(1, 100, 1000)
    ledger.settle(one, Use(1, 30, 300))
    ledger.settle(one, Use(1, 30, 300))
    assert ledger.total(run="a") == Use(1, 30, 300), "booked once"
    ledger.settle(two, NONE)
    ledger.book(DAY, "b", "m", Use(1, 5, 7))
    assert ledger.total(day=DAY) == Use(2, 35, 307)
    assert Ledger(tmp_path / "spending.sqlite").total(day=DAY) == Use(2, 35, 307)


def test_a_refusal_says_whether_waiting_may_help() -> None:
    ledger, bound = Ledger(":memory:"), Use(tokens=100)
    first = hold(ledger, Use(1, 70), of_run=bound)
    assert isinstance(first, Hold)
    second = hold(ledger, Use(1, 40), of_run=bound)
    assert isinstance(second, Refusal) and (second.part, second.waits) == ("tokens", True)
    ledger.settle(first, Use(1, 70))
    third = hold(ledger, Use(1, 40), of_run=bound)
    assert isinstance(third, Refusal) and not third.waits and third.spent == Use(1, 70)
    assert isinstance(hold(ledger, Use(1, 30), of_run=bound), Hold), "up to the bound itself"
    other = hold(ledger, Use(1, 1), run="b", of_day=Use(calls=2))
    assert isinstance(other, Refusal) and (other.scope, other.part) == ("day", "calls")


def _spend(path: Path, seed: int, result: Any, together: Any) -> None:
    """Make up to 60 calls under the shared bounds, some unmade, one process killed in a call."""
    draw = random.Random(seed)
    ledger = Ledger(path)
    used, calls = Use(), 0
    if seed != 3:
        together.wait(60)
    for _ in range(60):
        most = Use(1, draw.randint(10, 60), draw.randint(10, 60))
        found = ledger.hold(DAY, f"run{seed % 2}", "m", most, of_run=Use(tokens=2500),
                            of_day=Use(90, 4000, 4200))  # fmt: skip
        if isinstance(found, Refusal):
            continue
        real = Use(1, draw.randint(0, most.tokens), draw.randint(0, most.nanos))
        calls += 1
        if seed == 3 and calls == 7:
            together.wait(60)  # dies in its seventh call, while the others make theirs
            result.put((used + real).__dict__)  # spent, and not booked
            result.close()
            result.join_thread()
            os.kill(os.getpid(), signal.SIGKILL)
        if draw.random() < 0.1:
            ledger.settle(found, NONE)
            continue
        used += real
        ledger.settle(found, real)
    result.put(used.__dict__)


def test_processes_together_never_count_too_little_nor_exceed_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "spending.sqlite"
    context = multiprocessing.get_context("fork")
    together = context.Barrier(5)
    results = [context.Queue() for _ in range(5)]
    workers = [
        context.Process(target=_spend, args=(path, n, q, together)) for n, q in enumerate(results)
    ]
    for worker in workers:
        worker.start()
    reported = [Use(**q.get(timeout=60)) for q in results]
    for worker in workers:
        worker.join(timeout=60)
    assert workers[3].exitcode == -signal.SIGKILL
    real = sum(reported, Use())
    total = Ledger(path).total(day=DAY)
    assert real.tokens <= total.tokens <= 4000 and real.nanos <= total.nanos <= 4200
    assert real.calls <= total.calls <= 90
    assert total.tokens - real.tokens <= 60, "only the killed call counts with its bound"
    runs = [Ledger(path).total(run=f"run{n}") for n in (0, 1)]
    assert runs[0] + runs[1] == total and all(r.tokens <= 2500 for r in runs)
    assert total.calls == 90 or total.tokens > 3900 or total.nanos > 4100, "a bound was reached"


def test_money_is_rounded_up_and_never_drifts() -> None:
    assert nanos(0.1 + 0.2) == 300_000_000 and nanos(1.2e-9) == 2 and nanos(0) == 0
    meter = Meter(Ledger(":memory:"), run="a", model="m", price=Price(input=0.15, output=0.6))
    for _ in range(1000):
        meter.add(1, 1)
    assert meter.ledger.total(run="a").nanos == 750_000


def test_a_call_is_held_at_its_dearest() -> None:
    meter = Meter(Ledger(":memory:"), Budget(money=1.0), "a", "m",
                  Price(input=1.0, output=2.0, cached_input=1.25))  # fmt: skip
    found = meter.hold(1000, 100)
    assert isinstance(found, Hold) and found.most == Use(1, 1100, 1_450_000)


def test_words_of_a_bound() -> None:
    meter = Meter(
        Ledger(":memory:"), Budget(tokens=50, calls_per_day=2), "a", "m", today=lambda: DAY
    )
    assert meter.calls_left == 2 and meter.stopped == ""
    meter.add(20, 10)
    refusal = meter.hold(15, 10)
    assert isinstance(refusal, Refusal)
    assert meter.refused(refusal) == (
        "budget reached: 30 of 50 tokens; the next call may need up to 25"
    )
    meter.add(20, 10)
    assert meter.stopped == "budget reached: 60 of 50 tokens" and meter.calls_left == 0
    assert meter.no_calls == "budget reached: 2 calls of this day (UTC)"


def test_the_meter_of_a_run(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, engine="openai", model="m", budget_calls=5,
                        budget_money_per_day=1.0)  # fmt: skip
    with pytest.raises(EngineError, match=r'\[prices\."m"\] with input = and output ='):
        open_meter(settings, "a")
    settings = replace(settings, prices={"m": Price(input=1.0)})
    meter = open_meter(settings, "a", {"budget_calls": 2})
    assert (meter.budget.calls, meter.budget.money_per_day) == (2, 1.0)
    assert ledger_path(settings).is_file()
