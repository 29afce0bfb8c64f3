"""A sparse item-item matrix from co-occurrence."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.training import TRAIN
from .decay_net import known_decay, settle_decay, weighted_hot
from .histories import rows_of, unique_pairs
from .sparse_net import csr

BLOCK = 2048  # items whose similarities are dense at a time, fewer where the catalog is large:
BLOCK_FLOATS = 1 << 26  # 256 MiB


def binary_matrix(user: np.ndarray, item: np.ndarray, data: Any) -> Any:
    """Return the scipy CSR matrix (U + 1, N + 1) with 1 for each pair."""
    from scipy.sparse import csr_matrix

    ones = np.ones(len(user), np.float32)
    return csr_matrix((ones, (user, item)), shape=(data.n_users + 1, data.n_items + 1))


def block_rows(width: int) -> int:
    """Return how many rows of ``width`` floats are dense at a time."""
    return max(1, min(BLOCK, BLOCK_FLOATS // width))


def neighbours(x: Any, k: int, shrink: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (target, neighbour, similarity), sorted by target, of the k most similar items.

    x is a binary scipy matrix (users, items). All that tie with the k-th are kept, so that the
    result does not depend on how items are numbered.
    """
    norm = np.sqrt(np.asarray(x.sum(0)).ravel())
    columns, rows = x.tocsc(), block_rows(x.shape[1])
    parts = []
    for at in range(0, x.shape[1], rows):
        s = np.asarray((columns[:, at : at + rows].T @ x).toarray(), np.float32)  # (block, N + 1)
        width = np.arange(len(s))
        s[width, at + width] = 0
        s /= np.maximum(norm[at : at + len(s), None] * norm[None, :] + shrink, 1e-12)
        last = max(0, s.shape[1] - k)
        least = np.partition(s, last, axis=1)[:, last : last + 1]
        row, column = np.nonzero((s >= least) & (s > 0))
        parts.append((at + row, column, s[row, column]))
    return tuple(np.concatenate(p) for p in zip(*parts, strict=True))  # type: ignore[return-value]


class ItemKNNNet(nn.Module):
    """Scores are the weighted sum over the history of similarities to each target's neighbours."""

    def __init__(self, *, n_items: int, k: int, shrink: float, decay: str) -> None:
        super().__init__()
        known_decay(decay)
        self.config = {"n_items": n_items, "k": k, "shrink": shrink, "decay": decay}
        self.hooks = nn.ModuleList()
        self.register_buffer("start", torch.zeros(n_items + 2, dtype=torch.int64))
        self.register_buffer("column", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("value", torch.zeros(0))

    def fit(self, data: Any, inputs: Any) -> None:
        rows = rows_of(data, (TRAIN,))
        x = binary_matrix(*unique_pairs(rows.user, rows.item, data.n_items), data)
        target, other, value = neighbours(x, self.config["k"], self.config["shrink"])
        counts = np.bincount(target, minlength=data.n_items + 1)
        self.start = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]))
        self.column, self.value = torch.from_numpy(other.astype(np.int64)), torch.from_numpy(value)
        settle_decay(self, data)

    def _load_from_state_dict(self, state: Any, prefix: str, *args: Any) -> None:
        for name in ("column", "value"):  # their length is known only from the weights
            if prefix + name in state:
                setattr(self, name, torch.empty_like(state[prefix + name]))
        super()._load_from_state_dict(state, prefix, *args)

    def user_state(self, batch: Any) -> Tensor:
        """Return the weights (B, N + 1) of the items of each history."""
        return weighted_hot(batch.items, self.config["n_items"], self.config["decay"])

    def score(self, state: Tensor, ids: Tensor | None = None) -> Tensor:
        size = self.config["n_items"] + 1
        matrix = csr(self.start, self.column, self.value, (size, size))  # targets x neighbours
        scores = (matrix @ state.T).T
        return scores.contiguous() if ids is None else scores[:, ids]

    def keep(self) -> None:
        """Nothing to compute ahead."""

    def release(self) -> None:
        """Nothing was kept."""
