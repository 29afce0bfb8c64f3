"""The loss of neighbour distillation. Shapes: B batch, U users, K neighbours, D width."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.training import VALID
from ..models.histories import history_before
from ..models.ranking_net import history_batch, kept, user_blocks

if TYPE_CHECKING:
    import pyarrow as pa

    from ..data.training import IdMap, TrainingData


def neighbour_lists(table: pa.Table, ids: IdMap, n: int, name: str) -> np.ndarray:
    """Return int64 (U + 1, n): positions of each user's most similar others by rank, 0 = none.

    Raises ValueError where columns are missing or no row joins the log. A row that names a user
    as its own neighbour is left out.
    """
    missing = {"user_id", "other_id", "rank"} - set(table.column_names)
    if missing:
        raise ValueError(
            f"{name}: columns {table.column_names}, missing {sorted(missing)}; expected one row "
            "per (user_id, other_id) with its rank"
        )
    user = ids.index(table["user_id"].to_pylist())
    other = ids.index(table["other_id"].to_pylist())
    rank = np.asarray(table["rank"].to_numpy(zero_copy_only=False), np.int64)
    good = (user > 0) & (other > 0) & (user != other)
    if not good.any():
        raise ValueError(f"{name}: none of its {len(user)} rows joins two users of the log")
    order = np.lexsort((rank, user))
    order = order[good[order]]
    user, other = user[order], other[order]
    place = np.arange(len(user)) - np.searchsorted(user, user)
    lists = np.zeros((len(ids) + 1, n), np.int64)
    kept_rows = place < n
    lists[user[kept_rows], place[kept_rows]] = other[kept_rows]
    return lists


def distillation_loss(states: Tensor, neighbours: Tensor, real: Tensor) -> Tensor:
    """Return the mean squared difference of states (B, D) and the mean of their neighbours.

    neighbours (B, K, D) are constants here; real (B, K) marks those that exist. Users without any
    have no term; 0 if nobody has one.
    """
    count = real.sum(1)
    mean = (neighbours.detach() * real[..., None]).sum(1) / count.clamp(min=1)[:, None]
    some = (count > 0).to(states.dtype)
    per_user = (states - mean).square().mean(1)
    return (per_user * some).sum() / some.sum().clamp(min=1)


class NeighbourHook(nn.Module):
    """Keeps who is similar to whom and, between refreshes, everyone's vector."""

    def __init__(
        self, lists: np.ndarray, data: TrainingData, weight: float, every_step: bool
    ) -> None:
        super().__init__()
        self.register_buffer("lists", torch.from_numpy(lists), persistent=False)
        self.weight, self.every_step = weight, every_step
        self._history = history_before(data, VALID)
        self._vectors: Tensor | None = None  # (U + 1, D)

    def begin_epoch(self, model: Any, number: int) -> None:
        if self.every_step or not self.weight:
            return
        wanted = np.unique(self.lists.cpu().numpy())
        with kept(model):
            for users, states in user_blocks(model, wanted[wanted > 0], self._history):
                if self._vectors is None or self._vectors.shape[1] != states.shape[1]:
                    self._vectors = states.new_zeros(len(self.lists), states.shape[1])
                self._vectors[torch.from_numpy(users).to(states.device)] = states

    def extra_loss(self, model: Any, batch: Any, states: Tensor) -> Tensor | float:
        """Return ``weight * L_SD``; sequence states (B, L, D) count at their last position."""
        if not self.weight:
            return 0.0
        states = states[:, -1] if states.dim() == 3 else states
        others = self.lists[batch.user]  # (B, K)
        if self.every_step:
            neighbours = self._encoded(model, others)
        elif self._vectors is None:
            raise RuntimeError("begin_epoch must run before the first step: it fills the vectors")
        else:
            neighbours = self._vectors[others]
        return self.weight * distillation_loss(states, neighbours, others > 0)

    def _encoded(self, model: Any, others: Tensor) -> Tensor:
        unique, place = torch.unique(others, return_inverse=True)
        users = unique.cpu().numpy()
        with torch.no_grad():
            batch = history_batch(model, users, self._history, others.device)
            vectors = model.user_state(batch)
        return vectors[place]

    def fold(self, model: Any) -> None:
        """Distillation ends with training."""
