"""Batches of histories with gaps to fill, for models that read both ways."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.training import TrainingData
from ..models.counting import spread
from . import sequence_loader
from .batches import SequenceBatch


class Loader(sequence_loader.Loader):
    """Windows of at most ``backbone.max_len`` rows in which some are masked, drawn anew each epoch.

    Histories are cut from the newest row backwards, without overlap. A masked position holds N + 1
    in ``items`` and the item itself in ``targets``; 0 elsewhere. Each training row is masked with
    probability ``backbone.mask``, at least one in a window; with probability ``backbone.last`` a
    window is masked at its newest training row alone instead, which is what scoring asks. Rows of
    the HISTORY split are never masked.
    """

    def __init__(self, data: TrainingData, backbone: Any, seed: int) -> None:
        self._mask, self._only_last = backbone.mask, backbone.last
        super().__init__(data, backbone, seed)

    def _cut(
        self, low: np.ndarray, high: np.ndarray, known: np.ndarray, backbone: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (at, first, last) of the windows, rows first:last + 1 each.

        A row is masked in one window alone, however long its history. Where the oldest window
        would be one row, it is read together with the row after it, which is not masked there.
        """
        rows = max(2, backbone.max_len)
        at, back = spread(np.zeros_like(low), (high - low) // rows + 1)
        last = high[at] - back * rows
        first = np.maximum(low[at], last - rows + 1)
        aims = known[last + 1] > known[first]
        at, first, self._aimed = at[aims], first[aims], last[aims]  # rows to this one may be masked
        return at, first, np.maximum(self._aimed, first + 1)

    def _expected(self, known: np.ndarray) -> float:
        # Drawn anew in each epoch: as many as are expected, one where the draw gives none.
        may = known[self._aimed + 1] - known[self._first]
        several = self._mask * may + (1 - self._mask) ** may
        return float((self._only_last + (1 - self._only_last) * several).sum())

    def _batch(self, rows: np.ndarray, rng: np.random.Generator) -> SequenceBatch:
        index, real = sequence_loader.spans(self._first[rows], self._last[rows] + 1)
        items = np.where(real, self._item[index], 0)
        may = real & (index <= self._aimed[rows, None])
        aim = np.where(may, self._aim[index], 0)
        return self._made(rows, *self.masked(items, aim, rng), rng)

    def masked(
        self, items: np.ndarray, aim: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (items with gaps, targets); ``aim`` (B, L) is the item where it may be masked."""
        may = aim > 0
        row, length = np.arange(len(aim)), aim.shape[1]
        draw = np.where(may, rng.random(aim.shape), 2.0)
        gap = draw < self._mask
        gap[row, draw.argmin(1)] |= ~gap.any(1)  # at least one
        newest = length - 1 - may[:, ::-1].argmax(1)
        last = np.zeros_like(gap)
        last[row, newest] = True
        gap = np.where((rng.random(len(aim)) < self._only_last)[:, None], last, gap) & may
        return np.where(gap, self.data.n_items + 1, items), np.where(gap, aim, 0)
