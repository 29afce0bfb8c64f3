"""Network of the Deep Interest Network (torch)."""

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


class DINNet(nn.Module):
    """``logit = MLP([u; c; profile])`` with ``u = mean_t a(h_t, c) h_t`` over the history.

    ``c`` holds the candidate's fields (D wide); ``h_t`` those of a history item plus a vector of
    its rating level. All arguments are plain values (see ``config``).
    """

    def __init__(
        self,
        shape: Mapping[str, Any],
        dim: int,
        max_len: int,
        item_id: bool,
        user_id: bool,
        attention: int,
        mlp: Sequence[int],
        act: str,
        dropout: float,
        std: float,
        pool: str,
        columns: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self._arguments = {
            "shape": dict(shape), "dim": dim, "max_len": max_len, "item_id": item_id,
            "user_id": user_id, "attention": attention, "mlp": list(mlp), "act": act,
            "dropout": dropout, "std": std, "pool": pool,
        }  # fmt: skip
        self.hooks = nn.ModuleList()
        if pool not in ("mean", "sum"):
            raise ValueError(f"unknown pool {pool!r} of DIN: use 'mean' or 'sum'")
        self.pool = pool
        self.max_len = max_len
        self.items = EntityFields(shape["n_items"], shape["item"], dim, item_id, std)
        self.users = EntityFields(shape["n_users"], shape["user"], dim, user_id, std)
        width = self.items.n_fields * dim  # D
        if not width:
            raise ValueError("DIN without item ids needs at least one item field, found none")
        self.signal = nn.Embedding(len(shape["levels"]) + 1, width, padding_idx=0)  # 0 = no rating
        nn.init.normal_(self.signal.weight[1:], std=std)
        nn.init.zeros_(self.signal.weight[:1])
        self.register_buffer("levels", torch.tensor(shape["levels"]))
        self.attention = nn.Linear(4 * width, attention)  # over [h; c; h - c; h * c]
        self.attention_out = nn.Linear(attention, 1)
        self.tower = Tower(2 * width + self.users.n_fields * dim, mlp, act, dropout)
        self.columns = ExtraColumns()
        for m in columns:
            self.add_columns(m)

    @property
    def config(self) -> dict[str, Any]:
        return {**self._arguments, "columns": self.columns.widths}

    @property
    def item_table(self) -> nn.Embedding:
        if self.items.table is None:
            raise ValueError("this DIN has no item ids to initialize; set item_id=True")
        return self.items.table

    @property
    def user_table(self) -> nn.Embedding:
        if self.users.table is None:
            raise ValueError("this DIN has no user ids to initialize; set user_id=True")
        return self.users.table

    def fill(self, fields: CtrFields) -> None:
        """Take the field codes of a data set."""
        self.items.fill(fields.item, fields.shape["item"])
        self.users.fill(fields.user, fields.shape["user"])

    def add_columns(self, width: int) -> None:
        """Make weights for one more extra column of ``width``; drawn from the current stream."""
        self.columns.add(width, self.tower, first_order=False)

    def feature_columns(self, batch: CtrBatch) -> list[Tensor]:
        """Return the extra dense columns [(B, m), ...] that hooks add before the MLP."""
        return through(self, "feature_columns", batch)

    def _feature_columns(self, batch: CtrBatch) -> list[Tensor]:
        return []

    def activation_weights(self, h: Tensor, c: Tensor) -> Tensor:
        """Return a(h_t, c) (B, L) of ``h`` (B, L, D) and ``c`` (B, D), no softmax.

        The first layer over [h; c; h - c; h * c] is linear in h for a fixed c, so that it is one
        matrix per row instead of a fourfold wider input per position.
        """
        w_h, w_c, w_d, w_p = self.attention.weight.chunk(4, dim=1)
        keys = (w_h + w_d) + w_p * c.unsqueeze(1)  # (B, A, D)
        shift = c @ (w_c - w_d).T + self.attention.bias
        hidden = torch.baddbmm(shift.unsqueeze(1), h, keys.mT)  # (B, L, A)
        return self.attention_out(torch.relu(hidden)).squeeze(2)

    def history(self, batch: CtrBatch) -> tuple[Tensor, Tensor]:
        """Return (h (B, L, D), c (B, D)); each distinct item, and item with rating, once."""
        n_items, n_levels = self._arguments["shape"]["n_items"], len(self.levels) + 1
        items = Distinct(n_items + 1, batch.history, batch.item)
        vectors = self.items(items.ids).flatten(1)
        pairs = items.place(batch.history) * n_levels
        if batch.history_rating is not None:
            pairs = pairs + torch.bucketize(batch.history_rating, self.levels, right=True)
        rated = Distinct(len(items.ids) * n_levels, pairs)
        rows = vectors[rated.ids // n_levels] + self.signal(rated.ids % n_levels)
        return rows[rated.place(pairs)], vectors[items.place(batch.item)]

    def logits(self, batch: CtrBatch) -> Tensor:
        """Return (B,) log-odds of a click."""
        h, c = self.history(batch)
        mask = (batch.history > 0).to(h.dtype)
        weights = self.activation_weights(h, c) * mask
        u = torch.bmm(weights.unsqueeze(1), h).squeeze(1)
        if self.pool == "mean":
            u = u / mask.sum(1, keepdim=True).clamp(min=1)
        x = torch.cat([u, c, self.users(batch.user).flatten(1)], 1)
        added, logit = self.columns(self.feature_columns(batch))
        return self.tower(x, added) + logit

    def loss(self, batch: CtrBatch) -> Tensor:
        """Return the mean binary cross-entropy plus the hooks' extra losses (given the logits)."""
        logits = self.logits(batch)
        loss = F.binary_cross_entropy_with_logits(logits, batch.label)
        return loss + extra_losses(self, batch, logits)
