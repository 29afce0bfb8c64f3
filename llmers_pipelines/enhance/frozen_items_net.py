"""The adapter over frozen item vectors. Shapes: N items, E vector width, D width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class FrozenItemsHook(nn.Module):
    """``item_input`` and ``item_output`` are ``W2 (W1 z + b1) + b2``; the padding row is zero."""

    def __init__(self, vectors: Tensor, hidden: int, dim: int, output_dim: int) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors, persistent=False)  # frozen, not stored
        width = vectors.shape[1]
        self.first = nn.Linear(width, hidden or max(1, width // 2))
        self.second = nn.Linear(self.first.out_features, dim)
        own = nn.Linear(self.first.out_features, output_dim) if output_dim != dim else None
        self.output = own

    def start_at(self, std: float, output_std: float) -> None:
        """Scale W2 such that x starts with standard deviation ``std``; biases start at zero."""
        maps = [(self.second, std), *([(self.output, output_std)] if self.output else [])]
        with torch.no_grad():
            self.first.bias.zero_()
            for second, wanted in maps:
                second.bias.zero_()
                found = float(self._adapted(second, None)[1:].std())
                if found > 0:
                    second.weight.mul_(wanted / found)

    def _adapted(self, second: nn.Linear, ids: Tensor | None) -> Tensor:
        """Return (N + 1, D) for all items or (..., D) for ``ids``."""
        vectors = self.vectors if ids is None else self.vectors[ids]
        real = torch.arange(len(vectors), device=vectors.device) > 0 if ids is None else ids > 0
        return second(self.first(vectors)) * real[..., None]

    def item_input(self, model: Any, nxt: Any, ids: Tensor) -> Tensor:
        return self._adapted(self.second, ids)

    def item_output(self, model: Any, nxt: Any, ids: Tensor | None) -> Tensor:
        return self._adapted(self.output or self.second, ids)
