"""Counts as scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.training import TRAIN

DAY = 86_400  # seconds


class PopularityNet(nn.Module):
    """The same scores for everyone."""

    def __init__(self, *, n_items: int, days: int = 0) -> None:
        """``days`` is of the fit alone; what is served needs the counts."""
        super().__init__()
        self.days = days
        self.config = {"n_items": n_items}
        self.hooks = nn.ModuleList()
        self.register_buffer("counts", torch.zeros(n_items + 1))

    def fit(self, data: Any, inputs: Any) -> None:
        counts = data.train_counts
        if self.days:
            rows = data.split == TRAIN
            rows &= data.time > data.time[rows].max() - self.days * DAY
            counts = np.bincount(data.item[rows], minlength=data.n_items + 1)
        self.counts.copy_(torch.from_numpy(counts))

    def user_state(self, batch: Any) -> Tensor:
        return self.counts.new_zeros(len(batch.user), 0)

    def score(self, state: Tensor, ids: Tensor | None = None) -> Tensor:
        counts = self.counts if ids is None else self.counts[ids]
        return counts.expand(len(state), -1).clone()

    def keep(self) -> None:
        """Nothing to compute ahead."""

    def release(self) -> None:
        """Nothing was kept."""
