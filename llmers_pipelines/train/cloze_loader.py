"""Batches of histories with gaps to fill, for models that read both ways."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..data.training import TrainingData
from . import sequence_loader
from .batches import SequenceBatch


class Loader(sequence_loader.Loader):
    """Windows of at most ``backbone.max_len`` rows in which some are masked, drawn anew each epoch.

    A masked position holds N + 1 in ``items`` and the item itself in ``targets``; 0 elsewhere.
    Each training row is masked with probability ``backbone.mask``, at least one in a window; with
    probability ``backbone.last`` a window is masked at its newest training row alone instead,
    which is what scoring asks. Rows of the HISTORY split are never masked.
    """

    def __init__(self, data: TrainingData, backbone: Any, seed: int) -> None:
        # A window of the parent has one target more than it has inputs.
        inputs = dataclasses.replace(backbone, max_len=max(1, backbone.max_len - 1))
        self._mask, self._only_last = backbone.mask, backbone.last
        super().__init__(data, inputs, seed)

    def _expected(self, known: np.ndarray) -> float:
        # Drawn anew in each epoch: as many as are expected, one where the draw gives none.
        may = known[self._last + 1] - known[self._first]
        several = self._mask * may + (1 - self._mask) ** may
        return float((self._only_last + (1 - self._only_last) * several).sum())

    def _batch(self, rows: np.ndarray, rng: np.random.Generator) -> SequenceBatch:
        index, real = sequence_loader.spans(self._first[rows], self._last[rows] + 1)
        items = np.where(real, self._item[index], 0)
        aim = np.where(real, self._aim[index], 0)
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
