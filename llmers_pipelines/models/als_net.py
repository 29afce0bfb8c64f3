"""The half steps of implicit ALS. Shapes: B rows, L entries of a row, D width."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.training import TRAIN
from .decay_net import decay_weights, known_decay, settle_decay
from .histories import rows_of, unique_pairs

BLOCK_FLOATS = 1 << 22  # gathered factors and normal matrices that are in work together: 16 MiB
START_STD = 0.1  # over sqrt(D), of the items' first factors


def solved(entries: Tensor, weight: Tensor, base: Tensor, ridge: Tensor) -> Tensor:
    """Return x (B, D) of ``(sum_l w_l e_l e_l^T + base + ridge I) x = sum_l w_l e_l``.

    entries (B, L, D), weight (B, L) with 0 where there is none; base (D, D), ridge (B,) positive.
    """
    weighted = entries * weight[..., None]
    normal = torch.baddbmm(base.expand(len(entries), -1, -1), weighted.transpose(1, 2), entries)
    normal.diagonal(dim1=1, dim2=2).add_(ridge[:, None])
    return torch.cholesky_solve(weighted.sum(1)[..., None], torch.linalg.cholesky(normal))[..., 0]


def half_step(
    start: np.ndarray, column: Tensor, factors: Tensor, alpha: float, l2: float, power: float,
    size: int,
) -> Tensor:  # fmt: skip
    """Return the factors (R, D) of all rows, given those of the columns (C, D).

    ``start`` int64[R + 1] and ``column`` (E,) are the rows in compressed form; ``size``: columns
    that can be seen at all, for the regularization. Rows without entries are zero. Rows of similar
    length are solved together.
    """
    d = factors.shape[1]
    base = alpha * factors.T @ factors
    counts = np.diff(start)
    out = factors.new_zeros(len(counts), d)
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    at = 0
    while at < len(order):
        rows = _block(counts[order[at:]], d)
        block = order[at : at + rows]
        n = counts[block]
        place = np.arange(n.max())
        real = torch.from_numpy(place < n[:, None]).to(factors.dtype)
        index = np.minimum(start[block][:, None] + place, len(column) - 1)
        entries = factors[column[torch.from_numpy(index)]]
        ridge = l2 * torch.from_numpy((n + alpha * size) ** power).to(factors.dtype)
        out[torch.from_numpy(block)] = solved(entries, real, base, ridge)
        at += rows
    return out


def _block(counts: np.ndarray, d: int) -> int:
    """Return how many of the next rows, shortest first, fit into one block; at least 1."""
    cost = np.arange(1, len(counts) + 1) * (counts + d) * d
    return max(1, int(np.searchsorted(cost, BLOCK_FLOATS, side="right")))


class ALSNet(nn.Module):
    """Item factors; a user is the solution for the history that is given."""

    def __init__(
        self, *, n_items: int, dim: int, alpha: float, l2: float, power: float, iterations: int,
        decay: str,
    ) -> None:  # fmt: skip
        super().__init__()
        known_decay(decay)
        if alpha < 0 or l2 <= 0:
            raise ValueError(f"ALS: alpha {alpha} must not be negative and l2 {l2} must be above 0")
        self.config = {
            "n_items": n_items, "dim": dim, "alpha": alpha, "l2": l2, "power": power,
            "iterations": iterations, "decay": decay,
        }  # fmt: skip
        self.hooks = nn.ModuleList()
        self.register_buffer("items", torch.zeros(n_items + 1, dim))
        self._base: Tensor | None = None  # while kept

    def fit(self, data: Any, inputs: Any) -> None:
        log = rows_of(data, (TRAIN,))
        user, item = unique_pairs(log.user, log.item, data.n_items)
        by_item = np.argsort(item, kind="stable")
        of_user = np.searchsorted(user, np.arange(data.n_users + 2))
        of_item = np.searchsorted(item[by_item], np.arange(data.n_items + 2))
        items, users = torch.from_numpy(item), torch.from_numpy(user[by_item])
        how = {name: self.config[name] for name in ("alpha", "l2", "power")}
        d = self.config["dim"]
        drawn = np.random.default_rng(0).standard_normal((data.n_items + 1, d)) * START_STD
        y = torch.from_numpy(drawn / d**0.5).float()
        y[0] = 0
        for _ in range(self.config["iterations"]):
            x = half_step(of_user, items, y, **how, size=data.n_items)
            y = half_step(of_item, users, x, **how, size=data.n_users)
        self.items = y.to(self.items.device)
        settle_decay(self, data)

    def user_state(self, batch: Any) -> Tensor:
        """Return x (B, D), solved from the items of each history (B, L), weighed by their age."""
        weight = self._weights(batch.items)
        alpha, l2 = self.config["alpha"], self.config["l2"]
        base = alpha * self.items.T @ self.items if self._base is None else self._base
        count = weight.sum(1) + alpha * self.config["n_items"]
        ridge = l2 * count.clamp(min=1e-6) ** self.config["power"]
        d = self.items.shape[1]
        rows = max(1, BLOCK_FLOATS // ((batch.items.shape[1] + d) * d))
        parts = (t.split(rows) for t in (batch.items, weight, ridge))
        return torch.cat(
            [solved(self.items[i], w, base, r) for i, w, r in zip(*parts, strict=True)]
        )

    def _weights(self, items: Tensor) -> Tensor:
        """Return (B, L): each item's weight where it stands last in its history, 0 elsewhere."""
        ordered, place = items.sort(dim=1, stable=True)
        newest = torch.ones_like(ordered, dtype=torch.bool)
        newest[:, :-1] = ordered[:, :-1] != ordered[:, 1:]
        newest = torch.zeros_like(newest).scatter(1, place, newest)
        weight = decay_weights(self.config["decay"], items.shape[1]).to(items.device)
        return weight * (newest & (items > 0))

    def item_output(self, ids: Tensor | None = None) -> Tensor:
        """Return (N + 1, D) for all items, or (..., D) for ``ids``."""
        return self.items if ids is None else self.items[ids]

    def score(self, state: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return (B, N + 1) for all items or (B, K) for ``ids`` (K,)."""
        return state @ self.item_output(ids).T

    def keep(self) -> None:
        """Compute the part of the normal matrices that all users share, until ``release``."""
        self._base = self.config["alpha"] * self.items.T @ self.items

    def release(self) -> None:
        self._base = None
