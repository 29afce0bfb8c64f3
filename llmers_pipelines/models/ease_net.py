"""The weights of EASE."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.training import TRAIN
from .decay_net import known_decay, settle_decay, weighted_hot
from .histories import rows_of, unique_pairs
from .itemknn_net import binary_matrix


def ease_weights(gram: np.ndarray, l2: float) -> np.ndarray:
    """Return float64 (N, N) weights with zero diagonal from the co-occurrence matrix X^T X.

    The inverse is taken in float64: float32 is not enough for small ``l2``.
    """
    from scipy.linalg import lapack

    g = gram.astype(np.float64)
    g[np.diag_indices_from(g)] += l2
    factor, info = lapack.dpotrf(g, lower=True, overwrite_a=True)
    if info != 0:
        raise ValueError(f"EASE: X^T X + {l2} I is not positive definite; use l2 > 0")
    inverse, _ = lapack.dpotri(factor, lower=True, overwrite_c=True)
    lower = np.tril(inverse, -1)
    p = lower + lower.T
    weights = -p / np.diag(inverse)[None, :]
    weights[np.diag_indices_from(weights)] = 0.0
    return weights


class EASENet(nn.Module):
    """Scores are the weighted sum over the history of rows of one item-item matrix."""

    def __init__(self, *, n_items: int, l2: float, decay: str) -> None:
        super().__init__()
        known_decay(decay)
        self.config = {"n_items": n_items, "l2": l2, "decay": decay}
        self.hooks = nn.ModuleList()
        self.register_buffer("weights", torch.zeros(n_items + 1, n_items + 1))

    def fit(self, data: Any, inputs: Any) -> None:
        rows = rows_of(data, (TRAIN,))
        x = binary_matrix(*unique_pairs(rows.user, rows.item, data.n_items), data)
        gram = (x.T @ x).toarray()[1:, 1:]
        self.weights[1:, 1:] = torch.from_numpy(
            ease_weights(gram, self.config["l2"]).astype(np.float32)
        )
        settle_decay(self, data)

    def user_state(self, batch: Any) -> Tensor:
        """Return the weights (B, N + 1) of the items of each history."""
        return weighted_hot(batch.items, self.config["n_items"], self.config["decay"])

    def score(self, state: Tensor, ids: Tensor | None = None) -> Tensor:
        return state @ (self.weights if ids is None else self.weights[:, ids])

    def keep(self) -> None:
        """Nothing to compute ahead."""

    def release(self) -> None:
        """Nothing was kept."""
