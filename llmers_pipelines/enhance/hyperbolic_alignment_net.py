"""The alignment at work. Shapes: B batch, U users, N items, D width, E text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..models.hyperboloid_net import distance2, exp0


class HyperbolicAlignmentHook(nn.Module):
    """Squared distances between the points of a batch and the points of their texts."""

    def __init__(
        self, vectors: Mapping[str, tuple[Tensor, Tensor]], width: int, weight: float, rate: float
    ) -> None:
        """``vectors``: by side the text vectors (n + 1, E) and which of them are real (n + 1,)."""
        super().__init__()
        self.sides = tuple(vectors)
        for side, (rows, known) in vectors.items():
            self.register_buffer(f"{side}_vectors", rows, persistent=False)
            self.register_buffer(f"{side}_known", known, persistent=False)
        text = next(iter(vectors.values()))[0].shape[1]
        hidden = (text + width) // 2
        self.network = nn.Sequential(
            nn.Linear(text, hidden), nn.LeakyReLU(), nn.Linear(hidden, width)
        )
        for layer in (self.network[0], self.network[2]):
            nn.init.xavier_uniform_(layer.weight)  # type: ignore[arg-type]
        self.weight, self.rate = weight, rate

    def told(self, side: str, ids: Tensor) -> Tensor:
        """Return the points (M, D) of the texts of ``ids`` (M,)."""
        return exp0(self.network(getattr(self, f"{side}_vectors")[ids]).float())

    def extra_loss(self, model: Any, batch: Any, states: Tensor) -> Tensor | float:
        if not self.weight:
            return 0.0
        users, items = model.points()
        points = {"user": users, "item": items}
        rows = {"user": batch.user, "item": batch.positive}
        total: Tensor | float = 0.0
        for side in self.sides:
            # an entity of several pairs is told once and counts as often as it is there
            ids, count = rows[side].unique(return_counts=True)
            known = getattr(self, f"{side}_known")[ids]
            ids, count = ids[known], count[known]
            if len(ids):
                apart = distance2(points[side][ids], self.told(side, ids))
                total = total + (apart * count).sum() / count.sum()
        return self.weight * total

    def fold(self, model: Any) -> None:
        """The texts end with training."""
