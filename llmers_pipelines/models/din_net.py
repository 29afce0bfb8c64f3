"""Network of the Deep Interest Network (torch)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .click_net import HistoryNet

if TYPE_CHECKING:
    from .batches import CtrBatch


class DINNet(HistoryNet):
    """``logit = MLP([u; c; profile])`` with ``u = mean_t a(h_t, c) h_t`` over the history."""

    title = "DIN"

    def make(self, attention: int, pool: str) -> int:
        if pool not in ("mean", "sum"):
            raise ValueError(f"unknown pool {pool!r} of DIN: use 'mean' or 'sum'")
        self.pool = pool
        self.attention = nn.Linear(4 * self.width, attention)  # over [h; c; h - c; h * c]
        self.attention_out = nn.Linear(attention, 1)
        return 2 * self.width + self.users.n_fields * self._arguments["dim"]

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

    def logits(self, batch: CtrBatch) -> Tensor:
        h, c = self.history(batch)
        mask = (batch.history > 0).to(h.dtype)
        weights = self.activation_weights(h, c) * mask
        u = torch.bmm(weights.unsqueeze(1), h).squeeze(1)
        if self.pool == "mean":
            u = u / mask.sum(1, keepdim=True).clamp(min=1)
        x = torch.cat([u, c, self.profile(batch).flatten(1)], 1)
        added, logit = self.columns(self.feature_columns(batch))
        return self.tower(x, added) + logit
