"""Nearest items in a space of text vectors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .decay_net import decay_weights, known_decay, settle_decay


class TextKNNNet(nn.Module):
    """Cosine between the decayed mean of the history's vectors and each item's vector."""

    def __init__(
        self, *, n_items: int, decay: str, centre: bool, width: int = 0, source: Any = None
    ) -> None:
        super().__init__()
        known_decay(decay)
        self.config = {"n_items": n_items, "decay": decay, "centre": centre, "width": width}
        self.source = source
        self.hooks = nn.ModuleList()
        self.register_buffer("vectors", torch.zeros(n_items + 1, width))

    def fit(self, data: Any, inputs: Any) -> None:
        table = inputs[self.source]
        if table.entity != "item":
            raise ValueError(f"TextKNN needs vectors of items, got vectors of {table.entity}s")
        aligned, mask = table.aligned(data.items)
        vectors, real = torch.from_numpy(aligned).float(), torch.from_numpy(mask)
        if not bool(real.any()):
            raise ValueError(
                f"TextKNN: none of the {len(table.ids)} vectors belongs to an item of the log "
                f"(for example {list(table.ids[:3])} against {list(data.items.ids[:3])})"
            )
        if self.config["centre"]:
            vectors = vectors - vectors[real].mean(0)
        vectors[~real] = 0
        self.vectors = F.normalize(vectors, dim=-1)
        self.config["width"] = table.dim
        settle_decay(self, data)

    def user_state(self, batch: Any) -> Tensor:
        """Return the unit vector (B, E) of each history."""
        items = batch.items
        weight = decay_weights(self.config["decay"], items.shape[1]).to(self.vectors.device)
        weight = weight * (items > 0)
        return F.normalize((self.vectors[items] * weight[..., None]).sum(1), dim=-1)

    def score(self, state: Tensor, ids: Tensor | None = None) -> Tensor:
        return state @ (self.vectors if ids is None else self.vectors[ids]).T

    def keep(self) -> None:
        """Nothing to compute ahead."""

    def release(self) -> None:
        """Nothing was kept."""
