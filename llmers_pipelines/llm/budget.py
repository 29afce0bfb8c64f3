"""How much a run may ask and use before it stops, and what it has used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Bounds of one run and of one day (UTC); 0 = none. Money is in the currency of the price.

    An engine on this machine finishes the batch that it began, so a batch may exceed ``tokens``;
    an endpoint's calls are held back before they could exceed any bound (``meter``).
    """

    calls: int = 0
    tokens: int = 0  # prompt and answer tokens together
    money: float = 0.0
    calls_per_day: int = 0
    tokens_per_day: int = 0
    money_per_day: float = 0.0


@dataclass
class Spent:
    """What a run has used of its budget, in memory. Repairs and failed attempts count as well."""

    budget: Budget
    calls: int = 0
    tokens: int = 0

    def add(self, tokens_in: int, tokens_out: int = 0) -> None:
        self.calls += 1
        self.tokens += tokens_in + tokens_out

    @property
    def calls_left(self) -> int | None:
        """Calls that may still be made; None = no bound."""
        return max(0, self.budget.calls - self.calls) if self.budget.calls else None

    @property
    def no_calls(self) -> str:
        """Why no call is left, where none is."""
        return f"budget reached: {self.budget.calls} calls"

    @property
    def stopped(self) -> str:
        """Why nothing more may be begun, or ""."""
        if self.budget.calls and self.calls >= self.budget.calls:
            return f"budget reached: {self.calls} of {self.budget.calls} calls"
        if self.budget.tokens and self.tokens >= self.budget.tokens:
            return f"budget reached: {self.tokens} of {self.budget.tokens} tokens"
        return ""
