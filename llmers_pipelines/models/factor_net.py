"""The network of BPR-MF and LightGCN: a vector per user and item, a graph if there is one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .graph_net import Graph
from .hooks_net import extra_losses
from .losses_net import bpr, sampled_softmax
from .seams import through

OBJECTIVES = ("bpr", "ssm")


class FactorNet(nn.Module):
    """``s = <e_u, e_j>``, or their cosine over ``temperature`` for the softmax objective.

    An unknown user (position 0) with a history is represented by the mean of its items' vectors.
    """

    def __init__(
        self, *, n_users: int, n_items: int, dim: int, objective: str, temperature: float,
        l2: float, table_std: float, layers: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        if objective not in OBJECTIVES:
            raise ValueError(f"unknown loss {objective!r}: use one of {OBJECTIVES}")
        self.config = {
            "n_users": n_users, "n_items": n_items, "dim": dim, "objective": objective,
            "temperature": temperature, "l2": l2, "table_std": table_std, "layers": layers,
        }  # fmt: skip
        self.layers, self.l2, self.objective = layers, l2, objective
        self.temperature = temperature
        self.hooks = nn.ModuleList()
        self.user_table = nn.Embedding(n_users + 1, dim, padding_idx=0)
        self.item_table = nn.Embedding(n_items + 1, dim, padding_idx=0)
        with torch.no_grad():
            self.user_table.weight.normal_(0, table_std)[0] = 0
            self.item_table.weight.normal_(0, table_std)[0] = 0
        self.graph: Graph | None = None
        self._vectors: tuple[Tensor, Tensor] | None = None  # within one step, or while kept
        self._targets: Tensor | None = None  # item outputs as `score` uses them, while kept

    def _propagated(self) -> tuple[Tensor, Tensor]:
        """Return the (users, items) vectors of all entities after propagation."""
        if self._vectors is not None:
            return self._vectors
        users, items = self.user_table.weight, self.item_table.weight
        if self.graph is not None and self.layers:
            mixed = self.graph.propagate(torch.cat([users, items]), self.layers)
            users, items = mixed[: len(users)], mixed[len(users) :]
        return users, items

    def user_state(self, batch: Any) -> Tensor:
        """Return (B, D)."""
        return through(self, "user_state", batch)

    def _user_state(self, batch: Any) -> Tensor:
        users, _ = self._propagated()
        state = users[batch.user]
        items = getattr(batch, "items", None)  # only a scoring batch has histories
        if items is None or bool((batch.user > 0).all()):
            return state
        real = (items > 0)[..., None]
        mean = (self.item_output(items) * real).sum(1) / real.sum(1).clamp(min=1)
        return torch.where(batch.user[:, None] > 0, state, mean)

    def item_output(self, ids: Tensor | None = None) -> Tensor:
        """Return (N + 1, D) for all items, or (..., D) for ``ids``."""
        return through(self, "item_output", ids)

    def _item_output(self, ids: Tensor | None) -> Tensor:
        _, items = self._propagated()
        return items if ids is None else items[ids]

    def _compared(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.objective == "ssm" else vectors

    @property
    def _scale(self) -> float:
        return 1 / self.temperature if self.objective == "ssm" else 1.0

    def score(self, state: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return (B, N + 1) for all items or (B, K) for ``ids`` (K,); column 0 means nothing."""
        return through(self, "score", state, ids)

    def _score(self, state: Tensor, ids: Tensor | None) -> Tensor:
        if self._targets is None:
            targets = self._compared(self.item_output(ids))
        else:
            targets = self._targets if ids is None else self._targets[ids]
        return self._compared(state) @ targets.T * self._scale

    def loss(self, batch: Any) -> Tensor:
        """The objective on the batch, ``l2 / 2 |E^0|^2`` per pair, plus extra losses."""
        self._vectors = self._propagated()
        try:
            states = self.user_state(batch)  # (B, D)
            users = self._compared(states)
            positive = (users * self._compared(self.item_output(batch.positive))).sum(-1)
            negatives = self._compared(self.item_output(batch.negative))  # (B or 1, K, D)
            if len(batch.negative) == 1:
                negative = users @ negatives[0].T
            else:
                negative = (negatives @ users[..., None])[..., 0]
            positive, negative = positive * self._scale, negative * self._scale
            if self.objective == "bpr":
                main = bpr(positive, negative)
            else:
                same = batch.negative == batch.positive[:, None]
                main = sampled_softmax(positive, negative.masked_fill(same, -torch.inf))
            return main + self._penalty(batch) + extra_losses(self, batch, states)
        finally:
            self._vectors = None

    def _penalty(self, batch: Any) -> Tensor | float:
        if not self.l2:
            return 0.0
        rows = [self.user_table(batch.user), self.item_table(batch.positive)]
        if len(batch.negative) == len(batch.positive):
            rows.append(self.item_table(batch.negative))
        return 0.5 * self.l2 * sum(r.square().sum() for r in rows) / len(batch.user)

    def keep(self) -> None:
        """Compute propagation and item outputs once, until ``release``."""
        self._vectors = self._propagated()
        self._targets = self._compared(self.item_output()).detach().contiguous()

    def release(self) -> None:
        self._vectors = self._targets = None

    @property
    def is_kept(self) -> bool:
        return self._targets is not None

    def folded(self) -> FactorNet:
        """Return plain tables: propagation and hooks on vectors are in them, the graph is gone."""
        from .batches import SequenceBatch

        everyone = torch.arange(self.config["n_users"] + 1, device=self.user_table.weight.device)
        self._vectors = self._propagated()
        try:
            users = self.user_state(SequenceBatch(everyone, everyone[:, None] * 0))
            items = self.item_output()
        finally:
            self._vectors = None
        if users.shape[1] != items.shape[1]:
            raise ValueError(
                f"users have width {users.shape[1]}, items {items.shape[1]} after the hooks; a "
                "hook that widens item_output must widen user_state alike"
            )
        copy = FactorNet(**{**self.config, "dim": users.shape[1], "layers": 0}).to(users.device)
        with torch.no_grad():
            copy.user_table.weight.copy_(users)
            copy.item_table.weight.copy_(items)
        return copy
