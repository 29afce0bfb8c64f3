"""A weighted sum of two untrained models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..data.training import VALID
from .itemknn_net import ItemKNNNet
from .ranking_net import ndcg, rank_variants
from .textknn_net import TextKNNNet


class KNNBlendNet(nn.Module):
    """The user state is the two models' states side by side."""

    def __init__(
        self, *, n_items: int, weights: Any = (), items: Any = None, text: Any = None
    ) -> None:
        """``items`` and ``text`` are the models, or their ``config`` when rebuilt for serving."""
        super().__init__()
        self.n_items, self.weights = n_items, tuple(weights)
        self.items = ItemKNNNet(**items) if isinstance(items, dict) else items
        self.text = TextKNNNet(**text) if isinstance(text, dict) else text
        self.hooks = nn.ModuleList()
        self.register_buffer("weight", torch.zeros(()))

    @property
    def config(self) -> dict[str, Any]:
        return {
            "n_items": self.n_items, "weights": list(self.weights), "items": self.items.config,
            "text": self.text.config,
        }  # fmt: skip

    def fit(self, data: Any, inputs: Any) -> None:
        self.items.fit(data, inputs)
        self.text.fit(data, inputs)
        every = rank_variants(self, data, VALID, self._variants, len(self.weights))
        best = max((ndcg(r), -w) for r, w in zip(every, self.weights, strict=True))
        self.weight.fill_(-best[1])  # of equal ones the smaller

    def _variants(self, state: Tensor) -> Iterator[Tensor]:
        a, b = self._parts(state)
        return ((1 - w) * a + w * b for w in self.weights)

    def _parts(self, state: Tensor) -> tuple[Tensor, Tensor]:
        seen, query = state[:, : self.n_items + 1], state[:, self.n_items + 1 :]
        return _scaled(self.items.score(seen)), _scaled(self.text.score(query))

    def user_state(self, batch: Any) -> Tensor:
        return torch.cat([self.items.user_state(batch), self.text.user_state(batch)], 1)

    def score(self, state: Tensor, ids: Tensor | None = None) -> Tensor:
        a, b = self._parts(state)
        scores = (1 - self.weight) * a + self.weight * b
        return scores if ids is None else scores[:, ids]

    def keep(self) -> None:
        """Nothing to compute ahead."""

    def release(self) -> None:
        """Nothing was kept."""


def _scaled(scores: Tensor) -> Tensor:
    """Divide each row by its standard deviation over the catalog, column 0 excluded."""
    return scores / scores[:, 1:].std(1, keepdim=True).clamp(min=1e-9)
