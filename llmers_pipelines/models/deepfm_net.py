"""Network of DeepFM (torch)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from .click_net import FieldNet
from .ctr_net import Distinct
from .gather_net import rows

if TYPE_CHECKING:
    from .batches import CtrBatch


def fm(e: Tensor) -> Tensor:
    """Return (B,): the inner products of all pairs of fields of ``e`` (B, fields, dim), summed.

    ``0.5 sum_k [(sum_i e_ik)^2 - sum_i e_ik^2]`` (DeepFM, equation 2).
    """
    return 0.5 * pairs(e).sum(1)


def pairs(e: Tensor) -> Tensor:
    """Return (B, dim): twice the sum over all pairs of fields of their products, per dimension."""
    return e.sum(1).square() - e.square().sum(1)


class DeepFMNet(FieldNet):
    """``logit = w_0 + sum_i w_i + FM(e) + MLP(vec e)`` with one set of embeddings ``e``."""

    title = "DeepFM"

    def make(self) -> int:
        return self.n_fields * self.dim

    def interact(self, e: Tensor) -> tuple[Tensor, Tensor]:
        second = fm(e)  # before e is flattened: gradients are added up in this order
        return e.flatten(1), second

    def logits(self, batch: CtrBatch) -> Tensor:
        """Return (B,) log-odds. Grouped, what the first layer, FM and the first order make of a
        user or an item is one row, computed once and looked up: each is a sum over fields."""
        if not self.grouped:
            return super().logits(batch)
        users = Distinct(self._arguments["shape"]["n_users"] + 1, batch.user)
        items, vectors, history = self.entities(batch)
        user, item = self.users(users.ids).flatten(1), vectors.flatten(1)
        weights = self.tower.first.weight.split([x.shape[1] for x in (user, item, history)], 1)
        user = self._summed(user, weights[0], self.user_weights(users.ids))
        item = self._summed(item, weights[1], self.item_weights(items.ids))
        known = rows(user, users.place(batch.user)) + rows(item, items.place(batch.item))
        width = len(self.tower.first.bias) + self.dim
        both = known[:, :width] + F.linear(history, self._wide(weights[2]))
        deep, total = both.split([width - self.dim, self.dim], 1)
        rest = known[:, width] + 0.5 * (total.square().sum(1) - history.square().sum(1))
        added, logit = self.columns(self.feature_columns(batch))
        return self.bias + rest + self.tower.above(deep + self.tower.first.bias, added) + logit

    def _summed(self, x: Tensor, weight: Tensor, first: Tensor) -> Tensor:
        """Return ``[W x ; sum_f e_f ; sum w - 0.5 |x|^2]`` of entities x (n, fields * dim)."""
        own = first.sum((1, 2)) - 0.5 * x.square().sum(1)
        return torch.cat([F.linear(x, self._wide(weight)), own.unsqueeze(1)], 1)

    def _wide(self, weight: Tensor) -> Tensor:
        """Return ``weight`` (m, fields * dim) over the rows that add up the fields."""
        one = torch.eye(self.dim, dtype=weight.dtype, device=weight.device)
        return torch.cat([weight, one.repeat(1, weight.shape[1] // self.dim)])

    def states(self, e: Tensor) -> Tensor:
        """Return ``[pairs of fields ; last hidden layer]``; first-order weights are left out."""
        return torch.cat([pairs(e), self.hidden(e.flatten(1))], 1)
