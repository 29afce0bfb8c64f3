"""What the tests of the endpoint engine share: a clock without waits, an engine, requests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from loopback import Loopback

from llmers_pipelines.llm.budget import Budget
from llmers_pipelines.llm.clock import Stop
from llmers_pipelines.llm.ledger import Ledger
from llmers_pipelines.llm.meter import Meter
from llmers_pipelines.llm.openai import OpenAIEngine, OpenAISettings
from llmers_pipelines.llm.protocol import EngineStopped, GenRequest, GenResult
from llmers_pipelines.llm.rate import Rate
from llmers_pipelines.prices import Price

MODEL = "some/model"
KEY = "sk-test-0123456789abcdef"
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"type": "string", "minLength": 3, "maxLength": 20}},
    "required": ["mood"],
    "additionalProperties": False,
}


class QuickClock:
    """Waits take no time but are counted; ``now`` moves by them."""

    def __init__(self) -> None:
        self.time = 0.0
        self.waits: list[float] = []

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return 1_700_000_000.0 + self.time

    def wait(self, seconds: float, stop: Stop) -> None:
        self.waits.append(seconds)
        self.time += seconds
        time.sleep(0.001)  # others may run, as they would in a real wait


def engine_at(
    server: Loopback | str, *, budget: Budget | None = None, price: Price | None = None,
    ledger: Ledger | None = None, **settings: Any,
) -> OpenAIEngine:  # fmt: skip
    clock = QuickClock()
    url = server if isinstance(server, str) else server.url
    settings = {"concurrency": 1, "timeout_seconds": 5.0} | settings
    meter = Meter(ledger or Ledger(":memory:"), budget or Budget(), "run", MODEL, price,
                  today=lambda: "2026-01-01")  # fmt: skip
    made = OpenAISettings(MODEL, endpoint=url, **settings)
    rate = Rate(settings.get("requests_per_minute", 0), settings.get("tokens_per_minute", 0), clock)
    return OpenAIEngine(made, meter, clock=clock, rate=rate)


def requests_of(n: int, schema: dict[str, Any] | None = None, **more: Any) -> list[GenRequest]:
    return [
        GenRequest(f"r{i}", ({"role": "user", "content": f"Question {i} of all"},), schema=schema,
                   max_tokens=10, **more)
        for i in range(n)
    ]  # fmt: skip


def run(engine: OpenAIEngine, requests: list[GenRequest]) -> dict[str, GenResult]:
    return {r.row_id: r for r in engine.generate(requests)}


def one(server: Loopback, **settings: Any) -> tuple[GenResult, OpenAIEngine]:
    engine = engine_at(server, **settings)
    (result,) = engine.generate(requests_of(1))
    return result, engine


def collect(stream: Iterator[GenResult]) -> tuple[list[GenResult], str]:
    """Return the results and the reason of the stop after them."""
    found: list[GenResult] = []
    with pytest.raises(EngineStopped) as stopped:
        for result in stream:
            found.append(result)
    return found, str(stopped.value)
