"""How much a run may ask and use before it stops, and what it has used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Bounds of one run; 0 = none. What is begun is finished, so a batch may exceed ``tokens``."""

    calls: int = 0
    tokens: int = 0  # prompt and answer tokens together


@dataclass
class Spent:
    """What a run has used of its budget. Repairs and failed attempts count as well."""

    budget: Budget
    calls: int = 0
    tokens: int = 0

    def add(self, tokens: int) -> None:
        self.calls += 1
        self.tokens += tokens

    @property
    def calls_left(self) -> int | None:
        """Calls that may still be made; None = no bound."""
        return max(0, self.budget.calls - self.calls) if self.budget.calls else None

    @property
    def stopped(self) -> str:
        """Why nothing more may be begun, or ""."""
        if self.budget.calls and self.calls >= self.budget.calls:
            return f"budget reached: {self.calls} of {self.budget.calls} calls"
        if self.budget.tokens and self.tokens >= self.budget.tokens:
            return f"budget reached: {self.tokens} of {self.budget.tokens} tokens"
        return ""
