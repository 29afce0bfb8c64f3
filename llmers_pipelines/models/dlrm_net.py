"""Network of DLRM (torch)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .click_net import FieldNet

if TYPE_CHECKING:
    from .batches import CtrBatch

DENSE = 3  # features of a history


class DLRMNet(FieldNet):
    """``logit = MLP([d ; <v_i, v_j> for all i < j])`` over v = (d, e_1, ..., e_F), d = bottom(x).

    ``x`` (B, 3): log(1 + rows of the history), log(1 + liked rows), share of liked rows.
    """

    title = "DLRM"
    first_order = False

    def make(self, bottom: Sequence[int], itself: bool) -> int:
        layers: list[nn.Module] = []
        for a, b in pairwise([DENSE, *bottom, self.dim]):
            layers += [nn.Linear(a, b), nn.ReLU()]
        self.bottom = nn.Sequential(*layers)
        pairs = torch.tril_indices(self.n_fields + 1, self.n_fields + 1, 0 if itself else -1)
        self.register_buffer("pairs", pairs, persistent=False)
        return self.dim + pairs.shape[1]

    def dense(self, batch: CtrBatch) -> Tensor:
        """Return the dense features x (B, 3); they do not depend on padding."""
        rows = (batch.history > 0).sum(1).to(self.bottom[0].weight.dtype)
        liked = self.liked(batch).sum(1).to(rows.dtype)
        return torch.stack([rows.log1p(), liked.log1p(), liked / rows.clamp(min=1)], 1)

    def logits(self, batch: CtrBatch) -> Tensor:
        d = self.bottom(self.dense(batch))
        v = torch.cat([d.unsqueeze(1), self.embeddings(batch)], 1)
        products = (v @ v.mT)[:, self.pairs[0], self.pairs[1]]
        added, logit = self.columns(self.feature_columns(batch))
        return self.tower(torch.cat([d, products], 1), added) + logit
