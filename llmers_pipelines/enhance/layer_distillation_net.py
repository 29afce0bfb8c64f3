"""Losses on states inside a model. Shapes: B batch, L length, M positions, K blocks, D the
student's width, E the teacher's, N items, W width of item vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.training import HISTORY, TRAIN
from ..models.histories import rows_of
from ..models.losses_net import full_cross_entropy

if TYPE_CHECKING:
    import pyarrow as pa

    from ..data.training import TrainingData
    from .layer_distillation import LayerDistillation

COLUMNS = ("user_id", "position", "layer", "vec")


@dataclass(frozen=True)
class TeacherStates:
    """States by row of the known log: row ``start[u] + p`` is user u after p items."""

    start: np.ndarray  # int64[U + 2]
    at: np.ndarray  # int64[R + 1]: number of the state, 0 = not taught
    states: np.ndarray  # float32[P + 1, K, E], row 0 zero


def teacher_states(table: pa.Table, data: TrainingData, blocks: int, name: str) -> TeacherStates:
    """Join states to the log by user id and position, never by their order in the file.

    Rows of unknown users and of positions that are no training position are left out. Raises
    ValueError where columns are missing, a position has another number of layers than ``blocks``,
    a value is not finite, or nothing joins.
    """
    if missing := set(COLUMNS) - set(table.column_names):
        raise ValueError(f"{name}: columns {table.column_names}, missing {sorted(missing)}; "
                         "expected one row per (user_id, position, layer)")  # fmt: skip
    known = rows_of(data, (TRAIN, HISTORY))
    user = data.users.index(table["user_id"].to_pylist())
    position = table["position"].to_numpy().astype(np.int64)
    layer = table["layer"].to_numpy().astype(np.int64)
    good = (user > 0) & (position >= 1) & (position < known.counts[user])
    if not good.any():
        raise ValueError(f"{name}: none of its {len(user)} rows joins a training position")
    row = known.start[user] + position
    order = np.lexsort((layer, row))
    order = order[good[order]]
    places, counts = np.unique(row[order], return_counts=True)
    if (wrong := counts != blocks).any():
        first = order[np.searchsorted(row[order], places[wrong][0])]
        raise ValueError(
            f"{name}: user {table['user_id'][int(first)]}, position {position[first]} has "
            f"{counts[wrong][0]} layers, the student has {blocks} blocks; make both alike"
        )
    column = table["vec"].combine_chunks()
    width = column.type.list_size
    flat = np.asarray(column.values.to_numpy(zero_copy_only=False), np.float32)
    vectors = flat.reshape(-1, width)[order].reshape(len(places), blocks, width)
    if not np.isfinite(vectors).all():
        raise ValueError(f"{name}: a state is not finite; export them again")
    at = np.zeros(len(known.item) + 1, np.int64)
    at[places] = np.arange(1, len(places) + 1)
    none = np.zeros((1, blocks, width), np.float32)
    return TeacherStates(known.start, at, np.concatenate([none, vectors]))


def state_loss(student: Tensor, teacher: Tensor, weight: float, norm_weight: float) -> Tensor:
    """Return ``w (1 - mean cos) + n mean L2`` of states (M, E); the teacher gets no gradient."""
    teacher = teacher.detach()
    cosine = F.cosine_similarity(student, teacher, dim=-1).mean()
    apart = torch.linalg.vector_norm(student - teacher, dim=-1).mean()
    return weight * (1 - cosine) + norm_weight * apart


class LayerHook(nn.Module):
    """Keeps the teacher's states and adds their losses."""

    def __init__(
        self, told: TeacherStates, layers: tuple[int, ...], dim: int, how: LayerDistillation
    ) -> None:
        super().__init__()
        self.how, self.layers = how, layers
        for name in ("start", "at", "states"):
            value = torch.from_numpy(getattr(told, name))
            self.register_buffer(name, value, persistent=False)
        width = told.states.shape[2]
        apart = how.project == "always" or width != dim
        self.maps = nn.ModuleList(nn.Linear(dim, width) for _ in layers) if apart else None

    def extra_loss(self, model: Any, batch: Any, states: Tensor) -> Tensor | float:
        """Return the sum over blocks, over the positions of the batch that were taught."""
        if not (self.how.weight or self.how.norm_weight):
            return 0.0
        if getattr(batch, "begin", None) is None:
            raise ValueError("distillation of states needs batches that say where a window begins")
        real = batch.items > 0
        row = (self.start[batch.user] + batch.begin)[:, None] + real.cumsum(1)
        at = self.at[row * real]
        taught = real & (batch.targets > 0) & (at > 0)
        if not bool(taught.any()):
            return states.sum() * 0.0
        teacher = self.states[at[taught]]  # (M, K, E)
        total = states.sum() * 0.0
        for k, layer in enumerate(self.layers):
            own = model.layer_states[layer][taught]
            own = own if self.maps is None else self.maps[k](own)
            total = total + state_loss(own, teacher[:, k], self.how.weight, self.how.norm_weight)
        return batch.counted(total)

    def fold(self, model: Any) -> None:
        """Distillation ends with training."""


class HeadsHook(nn.Module):
    """A head after each block but the last, trained on the same targets."""

    def __init__(self, vectors: Tensor, layers: tuple[int, ...], dim: int, weight: float) -> None:
        super().__init__()
        self.layers, self.weight = layers, weight
        self.register_buffer("vectors", vectors, persistent=False)
        self.heads = nn.ModuleList(nn.Linear(dim, vectors.shape[1], bias=False) for _ in layers)

    def extra_loss(self, model: Any, batch: Any, states: Tensor) -> Tensor | float:
        if not self.weight or not self.layers:
            return 0.0
        real = batch.targets > 0
        total = states.sum() * 0.0
        for head, layer in zip(self.heads, self.layers, strict=True):
            own = head(model.layer_states[layer][real])
            total = total + full_cross_entropy(own, self.vectors, batch.targets[real])
        return self.weight * batch.counted(total)

    def fold(self, model: Any) -> None:
        """Supervision ends with training."""
