"""The adapter under the item offsets. Shapes: N items, E text width, D width."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    pass


class TextOffsetHook(nn.Module):
    """Adds ``weight * (W z + b)`` to the vectors of a history."""

    def __init__(self, vectors: Tensor, dim: int, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.register_buffer("vectors", vectors, persistent=False)  # frozen, not stored
        self.adapt = nn.Linear(vectors.shape[1], dim)

    def start_at(self, std: float) -> None:
        """Scale W such that the adapted vectors start with standard deviation ``std``; b = 0."""
        with torch.no_grad():
            self.adapt.bias.zero_()
            real = self.vectors.any(1)
            found = float(self.adapt(self.vectors[real]).std())
            if found > 0:
                self.adapt.weight.mul_(std / found)

    def item_input(self, model: Any, nxt: Any, ids: Tensor) -> Tensor:
        own = nxt(ids)
        if not self.weight:
            return own
        real = (ids > 0)[..., None]  # the padding row stays zero
        return own + self.weight * self.adapt(self.vectors[ids]) * real
