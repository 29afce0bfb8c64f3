"""Maps around frozen item vectors. Shapes: N items, W vector width, D width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class ProjectedItemsHook(nn.Module):
    """``item_input`` is ``U z + b``, ``item_output`` ``D^T z``; the padding row is zero."""

    def __init__(self, vectors: Tensor, dim: int, output_dim: int) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors, persistent=False)  # frozen, not stored
        self.up = nn.Linear(vectors.shape[1], dim)
        self.down = nn.Linear(output_dim, vectors.shape[1], bias=False)

    def start_at(self, std: float, output_std: float) -> None:
        """Scale both maps such that their sides start with these standard deviations."""
        real = self.vectors[1:]
        with torch.no_grad():
            self.up.bias.zero_()
            for weight, found, wanted in (
                (self.up.weight, self.up(real).std(), std),
                (self.down.weight, (real @ self.down.weight).std(), output_std),
            ):
                if found > 0:
                    weight.mul_(wanted / found)

    def item_input(self, model: Any, nxt: Any, ids: Tensor) -> Tensor:
        return self.up(self.vectors[ids]) * (ids > 0)[..., None]

    def item_output(self, model: Any, nxt: Any, ids: Tensor | None) -> Tensor:
        vectors = self.vectors if ids is None else self.vectors[ids]
        return vectors @ self.down.weight
