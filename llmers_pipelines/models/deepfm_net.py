"""Network of DeepFM (torch)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .ctr_net import Distinct, EntityFields, ExtraColumns, Tower
from .hooks_net import extra_losses
from .seams import through

if TYPE_CHECKING:
    from .batches import CtrBatch
    from .ctr_fields import CtrFields


def fm(e: Tensor) -> Tensor:
    """Return (B,): the inner products of all pairs of fields of ``e`` (B, fields, dim), summed.

    ``0.5 sum_k [(sum_i e_ik)^2 - sum_i e_ik^2]`` (DeepFM, equation 2).
    """
    return 0.5 * (e.sum(1).square() - e.square().sum(1)).sum(1)


class DeepFMNet(nn.Module):
    """``logit = w_0 + sum_i w_i + FM(e) + MLP(vec e)`` with one set of embeddings ``e``.

    Fields: those of the user, those of the candidate, and those of the history, each the mean over
    the liked items. All arguments are plain values (see ``config``).
    """

    def __init__(
        self,
        shape: Mapping[str, Any],
        dim: int,
        max_len: int,
        item_id: bool,
        user_id: bool,
        mlp: Sequence[int],
        act: str,
        dropout: float,
        std: float,
        columns: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self._arguments = {
            "shape": dict(shape), "dim": dim, "max_len": max_len, "item_id": item_id,
            "user_id": user_id, "mlp": list(mlp), "act": act, "dropout": dropout, "std": std,
        }  # fmt: skip
        self.hooks = nn.ModuleList()
        self.max_len = max_len
        self.liked_from = float(shape["liked_from"])
        self.items = EntityFields(shape["n_items"], shape["item"], dim, item_id, std)
        self.users = EntityFields(shape["n_users"], shape["user"], dim, user_id, std)
        fields = 2 * self.items.n_fields + self.users.n_fields
        if not self.items.n_fields:
            raise ValueError("DeepFM without item ids needs at least one item field, found none")
        self.item_weights = EntityFields(shape["n_items"], shape["item"], 1, item_id, 0.0)
        self.user_weights = EntityFields(shape["n_users"], shape["user"], 1, user_id, 0.0)
        self.bias = nn.Parameter(torch.zeros(()))
        self.tower = Tower(fields * dim, mlp, act, dropout)
        self.columns = ExtraColumns()
        for m in columns:
            self.add_columns(m)

    @property
    def config(self) -> dict[str, Any]:
        return {**self._arguments, "columns": self.columns.widths}

    @property
    def item_table(self) -> nn.Embedding:
        if self.items.table is None:
            raise ValueError("this DeepFM has no item ids to initialize; set item_id=True")
        return self.items.table

    @property
    def user_table(self) -> nn.Embedding:
        if self.users.table is None:
            raise ValueError("this DeepFM has no user ids to initialize; set user_id=True")
        return self.users.table

    def fill(self, fields: CtrFields) -> None:
        """Take the field codes of a data set."""
        for part in (self.items, self.item_weights):
            part.fill(fields.item, fields.shape["item"])
        for part in (self.users, self.user_weights):
            part.fill(fields.user, fields.shape["user"])

    def add_columns(self, width: int) -> None:
        """Make weights for one more extra column of ``width``; drawn from the current stream."""
        self.columns.add(width, self.tower, first_order=True)

    def feature_columns(self, batch: CtrBatch) -> list[Tensor]:
        """Return the extra dense columns [(B, m), ...] of the linear term and the MLP."""
        return through(self, "feature_columns", batch)

    def _feature_columns(self, batch: CtrBatch) -> list[Tensor]:
        return []

    def embeddings(self, batch: CtrBatch) -> Tensor:
        """Return e (B, fields, dim)."""
        items = Distinct(self._arguments["shape"]["n_items"] + 1, batch.history, batch.item)
        vectors = self.items(items.ids)  # (n, item fields, dim)
        liked = (batch.history > 0).to(vectors.dtype)
        if batch.history_rating is not None:
            liked = liked * (batch.history_rating >= self.liked_from)
        weights = liked / liked.sum(1, keepdim=True).clamp(min=1)  # no liked item: the zero vector
        history = F.embedding_bag(
            items.place(batch.history), vectors.flatten(1), mode="sum", per_sample_weights=weights
        ).unflatten(1, vectors.shape[1:])
        return torch.cat([self.users(batch.user), vectors[items.place(batch.item)], history], 1)

    def logits(self, batch: CtrBatch) -> Tensor:
        """Return (B,) log-odds of a click."""
        e = self.embeddings(batch)
        linear = self.user_weights(batch.user).sum((1, 2))
        linear = linear + self.item_weights(batch.item).sum((1, 2))
        added, logit = self.columns(self.feature_columns(batch))
        return self.bias + linear + fm(e) + self.tower(e.flatten(1), added) + logit

    def loss(self, batch: CtrBatch) -> Tensor:
        """Return the mean binary cross-entropy plus the hooks' extra losses (given the logits)."""
        logits = self.logits(batch)
        loss = F.binary_cross_entropy_with_logits(logits, batch.label)
        return loss + extra_losses(self, batch, logits)
