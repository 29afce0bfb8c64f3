"""Batches for sequence models: every position supervised, or the last one of each prefix; users of
similar length together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ..data.training import HISTORY, TRAIN, VALID, TrainingData
from ..models.counting import spread
from ..models.histories import rows_of, unique_pairs
from ..models.ranking_net import full_metric
from ..models.unseen import PAIRED, Unseen
from .batches import SequenceBatch

POOL = 16  # batches whose users are sorted by length together


def spans(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (index, real) (B, L): ``first:last`` of each row at the right end, 0 and False before.

    ``first`` < ``last``, int64[B]; L is the longest span.
    """
    index = last[:, None] + np.arange(-int((last - first).max()), 0)
    real = index >= first[:, None]
    return np.where(real, index, 0), real


class Loader:
    """Cuts histories into windows of at most ``backbone.max_len`` inputs with a target each.

    Windows are cut from the newest row backwards, so no interaction is lost as a target. Rows of
    the HISTORY split are inputs, never targets. Where ``backbone.trains_last_only``, each training
    row is the one target of a window of its own, so that what precedes it is all that a state can
    read. For ``backbone.loss`` "bpr" and "bce" each position
    has a negative that the user never met.
    """

    def __init__(self, data: TrainingData, backbone: Any, seed: int) -> None:
        self.data, self.fit, self.seed = data, backbone.fit, seed
        rows = rows_of(data, (TRAIN, HISTORY))
        is_target = data.split[rows.row] == TRAIN
        self._last_only = getattr(backbone, "trains_last_only", False)
        known = np.concatenate([[0], np.cumsum(is_target)])  # targets before a row
        users = np.flatnonzero(rows.counts > 1)
        low, high = rows.start[users], rows.start[users + 1] - 1
        at, self._first, self._last = self._cut(low, high, known, backbone)
        self._user = users[at]
        # An item that each of ``targets`` states predicts is that many targets.
        self._ahead = getattr(backbone, "targets", 1)
        self._targets = self._expected(known)
        self._item, self._aim = rows.item, np.where(is_target, rows.item, 0)
        self._time = data.time[rows.row] if getattr(backbone, "time_buckets", 0) else None
        self._begin = self._first - rows.start[self._user]
        self._unseen: Unseen | None = None
        if getattr(backbone, "loss", "ce") in PAIRED:
            self._unseen = Unseen(*unique_pairs(rows.user, rows.item, data.n_items), data.n_items)

    def _cut(
        self, low: np.ndarray, high: np.ndarray, known: np.ndarray, backbone: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (at, first, last) of the windows of histories ``low[at]`` to ``high[at]``.

        Inputs first:last, targets first + 1:last + 1; the newest window of a history comes first.
        """
        stride = 1 if self._last_only else backbone.max_len
        at, back = spread(np.zeros_like(low), -(-(high - low) // stride))
        last = high[at] - back * stride
        first = np.maximum(low[at], last - backbone.max_len)
        aims = known[last + 1] > known[np.maximum(first, last - stride) + 1]
        return at[aims], first[aims], last[aims]

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self._user) // self.fit.batch)

    def _expected(self, known: np.ndarray) -> float:
        """Return the targets of an epoch; ``known[r]`` is how many lie before row r."""
        if self._last_only:
            return float(len(self._last))
        end, from_ = self._last + 1, self._first + 1
        aimed = (known[end] - known[np.minimum(from_ + k, end)] for k in range(self._ahead))
        return float(sum(count.sum() for count in aimed))

    def _weight(self, items: np.ndarray, targets: np.ndarray) -> torch.Tensor | None:
        """Return the targets of a batch over those of a mean batch; None where batches are alike.

        The mean of ``weight * mean`` over an epoch's batches is the mean over its targets.
        """
        if self.fit.weigh != "target":
            return None
        width = items.shape[1]
        aimed = ((targets[:, k:] > 0) & (items[:, : width - k] > 0) for k in range(self._ahead))
        count = sum(int(real.sum()) for real in aimed)
        return torch.tensor(count * self.steps_per_epoch / self._targets, dtype=torch.float32)

    def epoch(self, number: int) -> Iterator[SequenceBatch]:
        rng = np.random.default_rng([self.seed, number])
        order, size = rng.permutation(len(self._user)), self.fit.batch
        length = self._last - self._first
        batches = []
        for at in range(0, len(order), size * POOL):
            pool = order[at : at + size * POOL]
            pool = pool[np.argsort(length[pool], kind="stable")]
            batches += [pool[i : i + size] for i in range(0, len(pool), size)]
        for index in rng.permutation(len(batches)):
            yield self._batch(batches[index], rng)

    def _batch(self, rows: np.ndarray, rng: np.random.Generator) -> SequenceBatch:
        index, real = spans(self._first[rows], self._last[rows])
        items = np.where(real, self._item[index], 0)
        targets = np.where(real, self._aim[index + 1], 0)
        if self._last_only:
            targets[:, :-1] = 0
        batch = self._made(rows, items, targets, rng)
        if self._time is None:
            return batch
        time = np.where(real, self._time[index], 0)
        return dataclasses.replace(batch, time=torch.from_numpy(time))

    def _made(
        self, rows: np.ndarray, items: np.ndarray, targets: np.ndarray, rng: np.random.Generator
    ) -> SequenceBatch:
        negative = None
        if self._unseen is not None:
            user = np.repeat(self._user[rows], items.shape[1])
            negative = torch.from_numpy(self._unseen(user, rng).reshape(items.shape))
        return SequenceBatch(
            torch.from_numpy(self._user[rows]), torch.from_numpy(items), torch.from_numpy(targets),
            torch.from_numpy(self._begin[rows]), negative,
            weight=self._weight(items, targets),
        )  # fmt: skip

    def validate(self, model: Any) -> float:
        return full_metric(self.fit.metric, model, self.data, VALID)
