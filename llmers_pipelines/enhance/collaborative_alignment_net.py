"""The alignment loss at work. Shapes: N items, K targets, D width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..models.contrast_net import info_nce, soft_target

LOSS = {"soft_target": soft_target, "info_nce": info_nce}


class AlignmentHook(nn.Module):
    """Contrast of the model's vectors of a batch's targets with frozen ones."""

    def __init__(self, vectors: Tensor, weight: float, tau: float, loss: str, most: int) -> None:
        super().__init__()
        self.weight, self.tau, self.loss, self.most = weight, tau, loss, most
        self.register_buffer("vectors", vectors, persistent=False)
        self.register_buffer("known", vectors.any(1), persistent=False)

    def extra_loss(self, model: Any, batch: Any, states: Any) -> Tensor | float:
        if not self.weight:
            return 0.0
        ids = torch.unique(batch.positive if hasattr(batch, "positive") else batch.targets)
        ids = ids[self.known[ids]]  # the padding row is none of them
        if len(ids) > self.most:
            drawn = torch.randperm(len(ids))[: self.most].to(ids.device)
            ids = ids[drawn]
        if len(ids) < 2:
            return 0.0
        own = model.item_input(ids)
        return self.weight * LOSS[self.loss](own, self.vectors[ids], self.tau)
