"""What a model's tokens cost, as ``llmers.toml`` says it; nothing is assumed without a price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Price:
    """Money per million tokens, per GPU-hour, and the share that a batch interface charges."""

    input: float = 0.0
    output: float = 0.0
    cached_input: float | None = None  # prompt tokens that the provider had cached; None = input
    batch: float = 1.0  # 0.5 = half the price when sent as a batch
    gpu_hour: float = 0.0
    tokens_per_second: float = 0.0  # of one GPU, prompt and answer together, for GPU-hours
    currency: str = "USD"

    def tokens(
        self, read: float, written: float, *, cached: float = 0, batch: bool = False
    ) -> float:
        """Return what ``read`` prompt tokens (of them ``cached``) and ``written`` ones cost."""
        reuse = self.input if self.cached_input is None else self.cached_input
        money = (read - cached) * self.input + cached * reuse + written * self.output
        return money / 1e6 * (self.batch if batch else 1.0)


def read_prices(where: str, rows: Mapping[str, Mapping[str, object]]) -> dict[str, Price]:
    """Return price by model name from ``[prices."name"]`` tables; ``ValueError`` names a fault."""
    known = {f.name: f for f in fields(Price)}
    prices = {}
    for model, row in rows.items():
        place = f'{where}: [prices."{model}"]'
        if not isinstance(row, Mapping):
            raise ValueError(f"{place} must be a table with input = and output =")
        for name, value in row.items():
            if name not in known:
                raise ValueError(f"{place}: unknown {name!r}; known: {', '.join(known)}")
            wanted = str if name == "currency" else (int, float)
            if not isinstance(value, wanted) or isinstance(value, bool):
                raise ValueError(f"{place}: {name} = {value!r} is not a number")
            if name != "currency" and value < 0:
                raise ValueError(f"{place}: {name} = {value!r} is negative")
        prices[model] = Price(**row)
    return prices
