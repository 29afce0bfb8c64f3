"""Records of what failed: what counts as the same combination, and what clears one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmers_pipelines.api import ItemSummary, items
from llmers_pipelines.config import Settings
from llmers_pipelines.orchestrate import attempts
from llmers_pipelines.orchestrate.attempts import Failures, attempt_key
from llmers_pipelines.orchestrate.context import StepError
from llmers_pipelines.plan import Generate

WANT: dict[str, Any] = {"code_version": "c", "inputs": {"catalog/items": "1"}, "sources": {}}
ASKING = Generate(ItemSummary(), over=items)


def test_a_budget_is_part_of_the_combination_where_a_model_is_asked() -> None:
    plain, raised = Settings(budget_calls=10), Settings(budget_calls=20)
    assert attempt_key(items, WANT, plain) == attempt_key(items, WANT, raised)
    assert attempt_key(ASKING, WANT, plain) != attempt_key(ASKING, WANT, raised)
    other = {**WANT, "inputs": {"catalog/items": "2"}}
    assert attempt_key(items, WANT, plain) != attempt_key(items, other, plain)


def test_the_next_day_counts_where_a_bound_is_one_per_day(monkeypatch: Any) -> None:
    class Clock(attempts.datetime):
        day = 1

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls(2026, 1, cls.day, tzinfo=tz)

    monkeypatch.setattr(attempts, "datetime", Clock)
    daily, whole = Settings(budget_tokens_per_day=5), Settings(budget_tokens=5)
    first = attempt_key(ASKING, WANT, daily), attempt_key(ASKING, WANT, whole)
    Clock.day = 2
    second = attempt_key(ASKING, WANT, daily), attempt_key(ASKING, WANT, whole)
    assert first[0] != second[0] and first[1] == second[1]


def test_a_record_says_what_failed_until_it_is_cleared(tmp_path: Path) -> None:
    failures = Failures(Settings(home=tmp_path))
    assert failures.get("shop", ASKING.name) is None
    failures.clear("shop", ASKING.name)
    error = StepError("budget reached: 3 of 3 calls", {"state": "budget reached", "missing": 7})
    failures.note("shop", ASKING.name, "k1", error)
    found = failures.get("shop", ASKING.name)
    assert found is not None and (found.key, found.state) == ("k1", "budget reached")
    assert found.error == "budget reached: 3 of 3 calls" and found.when
    failures.clear("shop", ASKING.name)
    assert failures.get("shop", ASKING.name) is None
    path = tmp_path / "data/llmers/refresh/shop" / f"{ASKING.name}.json"
    path.write_text("{ half")
    assert failures.get("shop", ASKING.name) is None, "what cannot be read holds nothing"
