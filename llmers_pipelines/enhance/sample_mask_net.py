"""The loss over samples that are kept. Shapes: B batch, K negatives of a pair, H hard samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..models.losses_net import kept_places

if TYPE_CHECKING:
    import pyarrow as pa

    from ..data.training import TrainingData

COLUMNS = ("user_id", "item_id", "label", "hard")


def hard_keys(table: pa.Table | None, data: TrainingData, name: str) -> tuple[np.ndarray, ...]:
    """Return sorted keys ``user (N + 1) + item`` of hard positives and of hard negatives.

    Raises ValueError for missing columns and for ids that are not of this log.
    """
    if table is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if missing := sorted(set(COLUMNS) - set(table.column_names)):
        raise ValueError(f"{name}: no column {missing[0]!r}; samples have {', '.join(COLUMNS)}")
    user = data.users.index(table["user_id"].to_pylist())
    item = data.items.index(table["item_id"].to_pylist())
    if len(user) and not (user * item).all():
        n = int(np.flatnonzero(user * item == 0)[0])
        raise ValueError(
            f"{name}: row {n}, user {table['user_id'][n]}, item {table['item_id'][n]} is not of "
            "this log; score its samples anew"
        )
    key = user * (data.n_items + 1) + item
    hard, label = (np.array(table[c].to_pylist(), bool) for c in ("hard", "label"))
    return np.unique(key[hard & label]), np.unique(key[hard & ~label])


class SampleMaskHook(nn.Module):
    """Counts training steps and drops the largest losses that nobody calls hard."""

    def __init__(
        self, positive: np.ndarray, negative: np.ndarray, width: int, most: float, grow: int
    ) -> None:
        super().__init__()
        self.register_buffer("positive", torch.from_numpy(positive), persistent=False)
        self.register_buffer("negative", torch.from_numpy(negative), persistent=False)
        self.width, self.most, self.grow, self.step = width, most, grow, 0

    def share(self, step: int) -> float:
        """Return eps(T) of step T, from 0."""
        return self.most * (min(1.0, step / self.grow) if self.grow else 1.0)

    def suspects(self, size: int) -> int:
        """Return how many of ``size`` losses are suspect at this step, rounded up."""
        return math.ceil(self.share(self.step) * size)

    def stays(self, batch: Any, losses: Tensor) -> Tensor:
        """Return (B,) bool: which of the losses (B,) count at this step."""
        stay = torch.zeros(len(losses), dtype=torch.bool, device=losses.device)
        dropped = self.suspects(len(losses))
        stay[kept_places(losses, (dropped + 0.5) / len(losses) if dropped else 0.0)] = True
        base = batch.user * self.width
        stay |= _within(base + batch.positive, self.positive)
        if batch.negative is not None and len(batch.negative) == len(batch.user):
            stay |= _within(base[:, None] + batch.negative, self.negative).any(1)
        return stay

    def pair_loss(self, model: Any, nxt: Any, batch: Any, states: Tensor) -> Tensor:
        """Return the mean over what stays; the backbone's own loss while nothing is dropped."""
        if not self.suspects(len(batch.user)):
            self.step += self.training
            return nxt(batch, states)
        losses = model.pair_losses(batch, states)
        stay = self.stays(batch, losses)
        self.step += self.training
        return losses[stay].mean()

    def fold(self, model: Any) -> None:
        """The mask ends with training."""


def _within(keys: Tensor, known: Tensor) -> Tensor:
    if not len(known):
        return torch.zeros_like(keys, dtype=torch.bool)
    at = torch.searchsorted(known, keys.contiguous()).clamp(max=len(known) - 1)
    return known[at] == keys
