"""The one descent of what a derivation fits by gradient: fixed steps, no held-out rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


def descend(
    module: nn.Module, loss: Callable[[np.ndarray, np.random.Generator], Tensor], size: int, *,
    lr: float, batch: int, epochs: int, seed: int, weight_decay: float = 0.0,
) -> list[float]:  # fmt: skip
    """Train ``module`` in place and return the mean loss of each epoch.

    ``loss(rows, rng)`` is that of the rows int64[b] among ``size``; all draws come from ``rng``,
    which follows from seed and epoch. Raises FloatingPointError where a loss is no number.
    """
    optimizer = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=weight_decay)
    told = []
    module.train()
    for epoch in range(epochs):
        rng = np.random.default_rng([seed, epoch])
        order, losses = rng.permutation(size), []
        for at in range(0, size, batch):
            rows = order[at : at + batch]
            if len(rows) < 2 and size > 1:  # a batch norm needs two
                continue
            optimizer.zero_grad(set_to_none=True)
            value = loss(rows, rng)
            if not torch.isfinite(value):
                raise FloatingPointError(
                    f"the loss is {float(value)} in epoch {epoch + 1}; lower lr (now {lr})"
                )
            value.backward()
            optimizer.step()
            losses.append(float(value.detach()))
        told.append(float(np.mean(losses)) if losses else 0.0)
    module.eval()
    return told
