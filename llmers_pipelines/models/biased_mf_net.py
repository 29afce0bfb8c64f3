"""Network of biased matrix factorization (torch)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .ctr_net import EntityFields
from .dropout_net import dropout
from .hooks_net import extra_losses

if TYPE_CHECKING:
    from .batches import CtrBatch
    from .met import Met


class BiasedMFNet(nn.Module):
    """``mu + b_u + b_i + <p_u, q_i>``; each term is a sum over the id and the fields.

    ``shape``: n_users, n_items, user and item (field -> [vocabulary, M]), mean and range of the
    training ratings. An unknown user or item (0) has no id term.
    """

    def __init__(self, shape: Mapping[str, Any], dim: int, std: float, dropout: float) -> None:
        super().__init__()
        self.config = {"shape": dict(shape), "dim": dim, "std": std, "dropout": dropout}
        self.hooks = nn.ModuleList()
        self.p, self.max_len = dropout, 1
        sides = (("n_users", "user"), ("n_items", "item"))
        self.users, self.items = (
            EntityFields(shape[n], shape[side], dim, True, std) for n, side in sides
        )
        self.user_bias, self.item_bias = (
            EntityFields(shape[n], shape[side], 1, True, 0.0) for n, side in sides
        )
        self.mean = nn.Parameter(torch.zeros(()))  # beside that of the training rows
        self.lowest, self.highest = shape["range"]

    def fill(
        self, item: Mapping[str, np.ndarray], user: Mapping[str, np.ndarray], met: Met
    ) -> None:
        """Take the field codes of a data set and the ids that training meets."""
        shape = self.config["shape"]
        for part in (self.items, self.item_bias):
            part.fill(item, shape["item"], met.items)
        for part in (self.users, self.user_bias):
            part.fill(user, shape["user"], met.users)

    @property
    def item_table(self) -> nn.Embedding:
        assert self.items.table is not None
        return self.items.table

    @property
    def user_table(self) -> nn.Embedding:
        assert self.users.table is not None
        return self.users.table

    def raw(self, batch: CtrBatch) -> Tensor:
        """Return (B,) predictions that are not cut to the range of ratings."""
        both = self.users(batch.user).sum(1) * self.items(batch.item).sum(1)
        biases = self.user_bias(batch.user).sum((1, 2)) + self.item_bias(batch.item).sum((1, 2))
        start = self.config["shape"]["mean"] + self.mean
        return start + biases + dropout(both, self.p, self.training).sum(1)

    def ratings(self, batch: CtrBatch) -> Tensor:
        """Return (B,) predicted ratings within the range of the training ratings."""
        return self.raw(batch).clamp(self.lowest, self.highest)

    def loss(self, batch: CtrBatch) -> Tensor:
        """Return the mean squared error plus the hooks' extra losses (given the predictions)."""
        predicted = self.raw(batch)
        return F.mse_loss(predicted, batch.label) + extra_losses(self, batch, predicted)
