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

BLOCK = 512  # columns that are worked on at once


def ease_weights(gram: np.ndarray, l2: float) -> np.ndarray:
    """Return float64 (N, N) weights with zero diagonal from the co-occurrence matrix X^T X.

    The inverse is taken in float64: float32 is not enough for small ``l2``. A ``gram`` in float64
    and in Fortran's order is overwritten and returned, so that one matrix is held and no second.
    """
    from scipy.linalg import lapack

    g = np.asfortranarray(gram, dtype=np.float64)
    g[np.diag_indices_from(g)] += l2
    factor, info = lapack.dpotrf(g, lower=True, overwrite_a=True)
    if info != 0:
        raise ValueError(f"EASE: X^T X + {l2} I is not positive definite; use l2 > 0")
    inverse, _ = lapack.dpotri(factor, lower=True, overwrite_c=True)
    diagonal = np.diag(inverse).copy()
    for start in range(0, len(inverse), BLOCK):  # the upper half is the lower one, then divided
        stop = start + BLOCK
        square = np.tril(inverse[start:stop, start:stop])
        inverse[start:stop, start:stop] = square + np.tril(square, -1).T
        inverse[start:stop, stop:] = inverse[stop:, start:stop].T
    inverse += 0.0  # no negative zeros
    inverse /= -diagonal
    inverse[np.diag_indices_from(inverse)] = 0.0
    return inverse


def co_occurrence(x: Any) -> np.ndarray:
    """Return X^T X float64 (N, N) in Fortran's order of the sparse matrix x (users, N + 1).

    It is made by blocks of columns: whole, as a sparse matrix beside it, it may take as much again.
    """
    columns, rows = x.tocsc(), x.T.tocsr()[1:]
    gram = np.empty((rows.shape[0],) * 2, order="F")
    for start in range(0, len(gram), BLOCK):
        stop = min(start + BLOCK, len(gram))
        gram[:, start:stop] = (rows @ columns[:, 1 + start : 1 + stop]).toarray()
    return gram


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
        weights = ease_weights(co_occurrence(x), self.config["l2"])
        self.weights[1:, 1:] = torch.from_numpy(weights)
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
