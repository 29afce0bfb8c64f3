"""What a model is fed: one frozen dataclass per kind of training, and left padding."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def _moved(value: Any, device: Any) -> Any:
    if isinstance(value, dict):
        return {name: _moved(v, device) for name, v in value.items()}
    return value if value is None else value.to(device)


class _Movable:
    """A batch that can be sent to a device."""

    def to(self, device: Any) -> Any:
        values = {
            f.name: _moved(getattr(self, f.name), device)
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
        }
        return type(self)(**values)


@dataclass(frozen=True)
class SequenceBatch(_Movable):
    """Histories, oldest first. Also what every ranking model is given when it scores users."""

    user: Tensor  # (B,) int64 positions, 0 = unknown user
    items: Tensor  # (B, L) int64 item positions, left padded with 0
    targets: Tensor | None = None  # (B, L) the item that follows, 0 = no target; None when scoring
    begin: Tensor | None = None  # (B,) the user's known rows before the window; None when scoring
    negative: Tensor | None = None  # (B, L) an item that the user never met, where a loss needs one
    time: Tensor | None = None  # (B, L) int64 seconds of each item, for models that read times
    # () float32: what the mean over its targets counts in an epoch, where it is not 1
    weight: Tensor | None = None

    def counted(self, mean: Tensor) -> Tensor:
        """Return a ``mean`` over the batch's targets as it counts in an epoch."""
        return mean if self.weight is None else mean * self.weight


@dataclass(frozen=True)
class PairBatch(_Movable):
    """Observed pairs and sampled negatives."""

    user: Tensor  # (B,)
    positive: Tensor  # (B,)
    negative: Tensor | None = None  # (B, K), or (1, K) when all rows share them


@dataclass(frozen=True)
class CtrBatch(_Movable):
    """Rows of a click log with the history that lies strictly before each row."""

    user: Tensor  # (B,)
    item: Tensor  # (B,)
    history: Tensor  # (B, L) item positions, left padded with 0
    history_rating: Tensor | None  # (B, L) float32
    label: Tensor | None  # (B,) float32, None when scoring
    rows: Tensor | None  # (B,) row numbers in the TrainingData, None when serving
    user_fields: dict[str, Tensor] = field(default_factory=dict)  # name -> (B,) codes
    item_fields: dict[str, Tensor] = field(default_factory=dict)
    scenario: Tensor | None = None  # (B,) codes, 0 = unknown; None where the log has none


@dataclass(frozen=True)
class NewsBatch(_Movable):
    """Clicks, each with items that were shown beside it and not clicked."""

    user: Tensor  # (B,)
    history: Tensor  # (B, L) clicked items, left padded with 0
    candidates: Tensor  # (B, 1 + K), the clicked item first
    history_rating: Tensor | None = None  # None: all of the history was clicked


def left_pad(
    histories: Sequence[np.ndarray], max_len: int | None = None, dtype: Any = np.int64
) -> np.ndarray:
    """Return (B, L): the last ``max_len`` entries of each history at the right, 0 before them.

    L is the longest kept history, at least 1, so that an empty history is one padding column.
    """
    kept = [h if max_len is None else h[-max_len:] for h in histories]
    lengths = np.fromiter(map(len, kept), np.int64, len(kept))
    length = max(1, int(lengths.max(initial=0)))
    out = np.zeros((len(kept), length), dtype)
    if lengths.any():
        filled = np.arange(length) >= length - lengths[:, None]
        out[filled] = np.concatenate(kept, dtype=dtype, casting="unsafe")
    return out
