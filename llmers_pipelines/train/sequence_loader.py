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
from ..models.histories import rows_of, unique_pairs
from ..models.ranking_net import rank_metric, rank_targets
from ..models.unseen import PAIRED, Unseen
from .batches import SequenceBatch, left_pad

POOL = 16  # batches whose users are sorted by length together


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
        stride = 1 if self._last_only else backbone.max_len
        user, first, last = [], [], []  # inputs first:last, targets first + 1:last + 1
        for u in np.flatnonzero(rows.counts > 1):
            low, high = rows.start[u], rows.start[u + 1] - 1
            for end in range(high, low, -stride):
                begin = max(low, end - backbone.max_len)
                if is_target[max(begin, end - stride) + 1 : end + 1].any():
                    user.append(u)
                    first.append(begin)
                    last.append(end)
        self._user = np.array(user, np.int64)
        self._first, self._last = np.array(first, np.int64), np.array(last, np.int64)
        self._item, self._aim = rows.item, np.where(is_target, rows.item, 0)
        self._time = data.time[rows.row] if getattr(backbone, "time_buckets", 0) else None
        self._begin = self._first - rows.start[self._user]
        self._unseen: Unseen | None = None
        if getattr(backbone, "loss", "ce") in PAIRED:
            self._unseen = Unseen(*unique_pairs(rows.user, rows.item, data.n_items), data.n_items)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self._user) // self.fit.batch)

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
        spans = [(self._first[r], self._last[r]) for r in rows]
        items = left_pad([self._item[a:b] for a, b in spans])
        targets = left_pad([self._aim[a + 1 : b + 1] for a, b in spans])
        if self._last_only:
            targets[:, :-1] = 0
        batch = self._made(rows, items, targets, rng)
        if self._time is None:
            return batch
        time = left_pad([self._time[a:b] for a, b in spans])
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
        )  # fmt: skip

    def validate(self, model: Any) -> float:
        return rank_metric(self.fit.metric, rank_targets(model, self.data, VALID))
