"""Clicks with what was shown beside them and not clicked, as batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data.training import TrainingData
from ..models.batches import NewsBatch
from .clicks import user_auc
from .ctr_loader import Loader as ClickLoader

if TYPE_CHECKING:
    from ..models.seams import Backbone


def groups_of(data: TrainingData) -> np.ndarray:
    """Return int64[R], equal for rows that were shown together: an impression of one user.

    Rows without an impression form one group per user.
    """
    shown = np.zeros(len(data.user), np.int64) if data.impression is None else data.impression
    key = data.user.astype(np.int64) * (int(shown.max(initial=0)) + 1) + shown
    return np.unique(key, return_inverse=True)[1].astype(np.int64)


class Loader(ClickLoader):
    """Batches of ``fit.batch`` training clicks, each with ``backbone.negatives`` others.

    They are drawn, with repetition, from the training rows of the same impression that were not
    clicked; where it has none, uniformly from the catalog. Histories hold clicked rows alone.
    Validation is the mean AUC over impressions with both classes.
    """

    def __init__(self, data: TrainingData, backbone: Backbone, seed: int) -> None:
        super().__init__(data, backbone, seed)
        if self._metric != "auc":
            raise ValueError(f"fit.metric {self._metric!r} does not suit a news model: use 'auc'")
        self._negatives, self._n_items = int(backbone.negatives), data.n_items
        self._group = groups_of(data)
        clicked = self._labels > 0.5
        self._clicks = self._train[clicked[self._train]]
        if not len(self._clicks):
            raise ValueError(f"the log of task {data.task!r} has no click in its training rows")
        passed = self._train[~clicked[self._train]]
        passed = passed[np.argsort(self._group[passed], kind="stable")]
        self._passed = data.item[passed].astype(np.int64)
        bounds = np.searchsorted(self._group[passed], np.arange(self._group.max() + 2))
        self._first, self._count = bounds[:-1], np.diff(bounds)

    def in_history(self, data: TrainingData) -> np.ndarray:
        return np.asarray(data.label) > 0.5

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self._clicks) // self._batch)

    def epoch(self, number: int) -> Iterator[Any]:
        """Yield every training click once, with negatives that depend on seed and ``number``."""
        rng = np.random.default_rng([self._seed, number])
        order = rng.permutation(self._clicks)
        for start in range(0, len(order), self._batch):
            rows = order[start : start + self._batch]
            b = self.batch(torch.from_numpy(rows))
            others = torch.from_numpy(self.negatives(rows, rng))
            candidates = torch.cat([b.item.unsqueeze(1), others], 1)
            yield NewsBatch(user=b.user, history=b.history, candidates=candidates)

    def negatives(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return items int64[B, K] for the clicks ``rows``, none of them the clicked one."""
        shape = (len(rows), self._negatives)
        group = self._group[rows]
        count = self._count[group][:, None]
        clicked = self._item[torch.from_numpy(rows)].numpy()[:, None]
        # uniform over the others: a step of 1 to N - 1 away from the clicked item
        other = (clicked - 1 + rng.integers(1, max(2, self._n_items), shape)) % self._n_items + 1
        if not len(self._passed):
            return other
        at = self._first[group][:, None] + (rng.random(shape) * count).astype(np.int64)
        drawn = self._passed[np.minimum(at, len(self._passed) - 1)]
        return np.where((count > 0) & (drawn != clicked), drawn, other)

    def validate(self, model: Any) -> float:
        p = self.probabilities(model, self._valid)
        if not np.isfinite(p).all():
            return float("nan")
        values, _ = user_auc(self._group[self._valid], self._labels[self._valid] > 0.5, p)
        return float(values.mean()) if len(values) else float("nan")
