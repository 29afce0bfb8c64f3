"""The bounds of a run and of a day, over every process that shares the ledger."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..prices import Price
from .budget import Budget
from .ledger import Hold, Ledger, Refusal, Use
from .protocol import EngineError

NANO = 10**9


def utc_day() -> str:
    return datetime.now(UTC).date().isoformat()


@dataclass
class Meter:
    """Books the use of one model under one run. It counts what ``Spent`` counts, and money."""

    ledger: Ledger
    budget: Budget = field(default_factory=Budget)
    run: str = ""
    model: str = ""
    price: Price | None = None
    today: Callable[[], str] = field(default=utc_day)

    def hold(self, tokens_in: int, tokens_out: int) -> Hold | Refusal:
        """Set aside a call of at most so many tokens, or say which bound it would exceed."""
        # A price for cached tokens may be the higher one, where writing a cache costs extra.
        dear = max(self.money(tokens_in, tokens_out, cached) for cached in (0, tokens_in))
        most = Use(1, tokens_in + tokens_out, nanos(dear))
        return self.ledger.hold(
            self.today(), self.run, self.model, most,
            of_run=self._of_run, of_day=self._of_day,
        )  # fmt: skip

    def settle(self, hold: Hold, tokens_in: int, tokens_out: int, money: float) -> None:
        """Book a call that was made."""
        self.ledger.settle(hold, Use(1, tokens_in + tokens_out, nanos(money)))

    def release(self, hold: Hold) -> None:
        """Give back a call that reached no model."""
        self.ledger.settle(hold, Use())

    def add(self, tokens_in: int, tokens_out: int = 0) -> None:
        """Book one call of an engine that holds nothing beforehand."""
        used = Use(1, tokens_in + tokens_out, nanos(self.money(tokens_in, tokens_out)))
        self.ledger.book(self.today(), self.run, self.model, used)

    def money(self, tokens_in: float, tokens_out: float, cached: float = 0) -> float:
        """Return what tokens cost; 0 without a price."""
        return self.price.tokens(tokens_in, tokens_out, cached=cached) if self.price else 0.0

    @property
    def _of_run(self) -> Use:
        b = self.budget
        return Use(b.calls, b.tokens, round(b.money * NANO))

    @property
    def _of_day(self) -> Use:
        b = self.budget
        return Use(b.calls_per_day, b.tokens_per_day, round(b.money_per_day * NANO))

    @property
    def calls_left(self) -> int | None:
        """Calls that may still be made; None = no bound."""
        left = []
        if self.budget.calls:
            left.append(self.budget.calls - self.ledger.total(run=self.run).calls)
        if self.budget.calls_per_day:
            left.append(self.budget.calls_per_day - self.ledger.total(day=self.today()).calls)
        return max(0, min(left)) if left else None

    @property
    def no_calls(self) -> str:
        """Why no call is left, where none is."""
        run, day = self.budget.calls, self.budget.calls_per_day
        left = run - self.ledger.total(run=self.run).calls
        if run and not (day and day - self.ledger.total(day=self.today()).calls < left):
            return f"budget reached: {run} calls"
        return f"budget reached: {day} calls of this day (UTC)"

    @property
    def stopped(self) -> str:
        """Why nothing more may be begun, or ""."""
        for scope, bound in (("run", self._of_run), ("day", self._of_day)):
            if bound == Use():
                continue
            key = {"run": self.run} if scope == "run" else {"day": self.today()}
            used = self.ledger.total(**key)
            for name in ("calls", "tokens", "nanos"):
                most = getattr(bound, name)
                if most and getattr(used, name) >= most:
                    part = "money" if name == "nanos" else name
                    return self.why(scope, part, used, bound)
        return ""

    def refused(self, refusal: Refusal) -> str:
        """Return the reason of a refusal in words."""
        why = self.why(refusal.scope, refusal.part, refusal.spent, refusal.bound)
        if refusal.part == "calls":
            return why
        need = refusal.need.nanos / NANO if refusal.part == "money" else refusal.need.tokens
        return f"{why}; the next call may need up to {need:.6g}"

    def why(self, scope: str, part: str, used: Use, bound: Use) -> str:
        of = "" if scope == "run" else " of this day (UTC)"
        if part == "money":
            unit = self.price.currency if self.price else ""
            amounts = f"{used.nanos / NANO:.6g} of {bound.nanos / NANO:.6g} {unit}".rstrip()
        else:
            amounts = f"{getattr(used, part)} of {getattr(bound, part)} {part}"
        return f"budget reached: {amounts}{of}"


def nanos(money: float) -> int:
    """Return money in whole billionths, rounded up but for the noise of floats."""
    return math.ceil(round(money * NANO, 3))


def ledger_path(settings: Any) -> Path:
    return Path(settings.data) / "spending.sqlite"


def open_meter(settings: Any, run: str, limits: dict[str, Any] | None = None) -> Meter:
    """Return the meter of a run. ``limits`` replace the configured bounds of the run.

    ``EngineError`` where money is bounded for an endpoint's model that has no price.
    """
    limits = limits or {}
    budget = Budget(
        calls=int(limits.get("budget_calls") or settings.budget_calls),
        tokens=int(limits.get("budget_tokens") or settings.budget_tokens),
        money=float(limits.get("budget_money") or settings.budget_money),
        calls_per_day=settings.budget_calls_per_day,
        tokens_per_day=settings.budget_tokens_per_day,
        money_per_day=settings.budget_money_per_day,
    )
    price = settings.prices.get(settings.model)
    if settings.engine == "openai" and price is None and (budget.money or budget.money_per_day):
        raise EngineError(
            f"a budget of money needs the price of {settings.model!r}: add to "
            f'{settings.config_file or "llmers.toml"} a table [prices."{settings.model}"] with '
            "input = and output = (money per million tokens)"
        )
    return Meter(Ledger(ledger_path(settings)), budget, run, settings.model, price)
