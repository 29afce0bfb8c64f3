"""The contrast of SGL, a part of LightGCN's network that training alone needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.training import TRAIN
from .graph_net import Graph
from .histories import rows_of, unique_pairs

if TYPE_CHECKING:
    from ..data.training import TrainingData

AUGMENTS = ("edge", "node", "walk")
VIEWS = 2


def info_nce(one: Tensor, two: Tensor, tau: float) -> Tensor:
    """Return the mean of ``-ln softmax_j(cos(one_i, two_j) / tau)_i``; both (M, D)."""
    one, two = F.normalize(one, dim=-1), F.normalize(two, dim=-1)
    return F.cross_entropy(one @ two.T / tau, torch.arange(len(one), device=one.device))


class ContrastHook(nn.Module):
    """Draws two thinned graphs per epoch and adds the contrast of their views."""

    stream: Any

    def __init__(
        self, data: TrainingData, augment: str, drop: float, tau: float, weight: float, seed: int
    ) -> None:
        super().__init__()
        if augment not in AUGMENTS:
            raise ValueError(f"unknown augment {augment!r}: use one of {AUGMENTS}")
        if not 0 <= drop < 1:
            raise ValueError(f"drop is {drop}; use a share in [0, 1)")
        rows = rows_of(data, (TRAIN,))
        self._user, self._item = unique_pairs(rows.user, rows.item, data.n_items)
        self._sizes = data.n_users, data.n_items
        self.augment, self.drop, self.tau, self.weight, self.seed = augment, drop, tau, weight, seed
        self._views: list[list[Graph]] = []  # one graph per layer

    def begin_epoch(self, model: Any, number: int) -> None:
        """Draw both views of epoch ``number`` from a stream of their own."""
        if not self.weight:
            return
        rng = np.random.default_rng([self.seed, number, 7])
        device, depth = model.item_table.weight.device, model.depth
        self._views = [
            [g.to(device) for g in self._drawn(rng, depth)] for _ in range(VIEWS)
        ]  # fmt: skip

    def _drawn(self, rng: np.random.Generator, depth: int) -> list[Graph]:
        if self.augment == "walk":
            return [self._thinned(rng.random(len(self._user)) >= self.drop) for _ in range(depth)]
        if self.augment == "edge":
            return [self._thinned(rng.random(len(self._user)) >= self.drop)] * depth
        users, items = (rng.random(n + 1) >= self.drop for n in self._sizes)
        return [self._thinned(users[self._user] & items[self._item])] * depth

    def _thinned(self, keep: np.ndarray) -> Graph:
        return Graph(self._user[keep], self._item[keep], *self._sizes)

    def view(self, model: Any, graphs: list[Graph]) -> tuple[Tensor, Tensor]:
        """Return the vectors of users (U + 1, D) and items (N + 1, D) on thinned graphs."""
        layer = total = model.start()
        for graph in graphs:
            layer = graph.layers(layer, 1)[1]
            total = total + layer
        return (total / (len(graphs) + 1)).tensor_split([self._sizes[0] + 1])

    def extra_loss(self, model: Any, batch: Any, states: Tensor) -> Tensor | float:
        """Return ``weight`` times the contrast of the batch's distinct users and items."""
        if not self.weight:
            return 0.0
        if not self._views:
            self.begin_epoch(model, 0)
        (u1, i1), (u2, i2) = (self.view(model, graphs) for graphs in self._views)
        users, items = batch.user.unique(), batch.positive.unique()
        of_users = info_nce(u1[users], u2[users], self.tau)
        return self.weight * (of_users + info_nce(i1[items], i2[items], self.tau))

    def fold(self, model: Any) -> None:
        """The contrast ends with training."""
