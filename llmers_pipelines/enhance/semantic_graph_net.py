"""The network of the semantic graph. Shapes: U users, N items, K neighbours, D width, E text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.dropout_net import dropout

if TYPE_CHECKING:
    import pyarrow as pa

    from ..data.training import IdMap


def neighbour_table(table: pa.Table, ids: IdMap, name: str) -> Tensor:
    """Return int64 (N + 1, K): neighbours of each item by rank, 0 where there is none.

    Neighbours outside of the log and an item itself are left out. ValueError where no row is left.
    """
    own = ids.index(table["item_id"].to_pylist())
    other = ids.index(table["other_id"].to_pylist())
    rank = table["rank"].to_numpy()
    keep = (own > 0) & (other > 0) & (own != other)
    if not keep.any():
        raise ValueError(f"{name}: none of {table.num_rows} rows joins two items of the log")
    own, other, rank = own[keep], other[keep], rank[keep]
    order = np.lexsort((rank, own))
    own, other = own[order], other[order]
    place = np.arange(len(own)) - np.searchsorted(own, own)
    out = np.zeros((len(ids) + 1, int(place.max()) + 1), np.int64)
    out[own, place] = other
    return torch.from_numpy(out)


class SemanticGraphHook(nn.Module):
    """Merges text vectors and semantic neighbours into what a graph model propagates."""

    stream: Any

    def __init__(
        self, vectors: Mapping[str, Tensor], near: Tensor, *, dim: int, attention: int,
        dropout: float, l2: float, strength: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.sides = tuple(vectors)
        for side, rows in vectors.items():
            self.register_buffer(f"{side}_vectors", rows, persistent=False)
        self.register_buffer("near", near, persistent=False)
        self.project = nn.ModuleDict(
            {side: nn.Linear(rows.shape[1], dim, bias=False) for side, rows in vectors.items()}
        )
        self.key = nn.Linear(vectors["item"].shape[1], attention, bias=False)
        self.query = nn.Parameter(torch.empty(2 * attention).normal_(0, attention**-0.5))
        self.p, self.l2, self.strength = dropout, l2, strength

    def vectors(self, side: str) -> Tensor:
        return getattr(self, f"{side}_vectors")

    def graph_input(self, model: Any, nxt: Any) -> Tensor:
        """Return (U + N + 2, D); row 0 of each side stays zero."""
        start = nxt()
        if not self.strength:
            return start
        if not self.training:
            return self._merged(model, start)
        with self.stream():
            return self._merged(model, start)

    def _merged(self, model: Any, start: Tensor) -> Tensor:
        users, items = start.tensor_split([model.config["n_users"] + 1])
        told = {side: dropout(self.vectors(side), self.p, self.training) for side in self.sides}
        if "user" in told:
            users = self._towards(users, F.elu(self.project["user"](told["user"])))
        items = self._towards(items, F.elu(self.project["item"](told["item"])))
        mixed = F.elu(self.mixed(items, dropout(self.alpha(told["item"]), self.p, self.training)))
        some = (self.near > 0).any(1, keepdim=True)
        return torch.cat([users, torch.where(some, self._towards(items, mixed), items)])

    def _towards(self, own: Tensor, other: Tensor) -> Tensor:
        """Return the mean of both at strength 1, ``own`` at strength 0."""
        return own + self.strength * 0.5 * (other - own)

    def alpha(self, vectors: Tensor) -> Tensor:
        """Return (N + 1, K): attention over the neighbours of each item, zero where none is."""
        keys = self.key(vectors)
        of_other, of_own = (keys @ q for q in self.query.chunk(2))
        weight = F.leaky_relu(of_other[self.near] + of_own[:, None], 0.2)
        real = self.near > 0
        weight = weight.masked_fill(~real, torch.finfo(weight.dtype).min)
        return weight.softmax(1) * real

    def mixed(self, items: Tensor, alpha: Tensor) -> Tensor:
        """Return (N + 1, D): the weighted sum of each item's neighbours."""
        return F.embedding_bag(self.near, items, per_sample_weights=alpha, mode="sum")

    def extra_loss(self, model: Any, batch: Any, states: Tensor) -> Tensor | float:
        if not self.l2:
            return 0.0
        rows = {"user": batch.user, "item": batch.positive}
        norms = [
            F.elu(self.project[side](self.vectors(side)[rows[side]])).square().sum(1).mean()
            for side in self.sides
        ]
        return 0.5 * self.l2 * sum(norms[1:], norms[0])
