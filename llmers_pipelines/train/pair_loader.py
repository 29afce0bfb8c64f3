"""Batches of observed pairs with sampled negatives, drawn anew in every epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ..data.training import TRAIN, VALID, TrainingData
from ..models.histories import rows_of, unique_pairs
from ..models.ranking_net import rank_metric, rank_targets
from .batches import PairBatch


class Loader:
    """Training pairs, each once per epoch.

    For ``backbone.loss == "bpr"`` one uniform negative per pair that is no training item of the
    user; for ``"ssm"`` ``backbone.negatives`` uniform items shared by the whole batch.
    """

    def __init__(self, data: TrainingData, backbone: Any, seed: int) -> None:
        self.data, self.fit, self.seed = data, backbone.fit, seed
        self._shared = 0 if backbone.loss == "bpr" else backbone.negatives
        rows = rows_of(data, (TRAIN,))
        self._user, self._item = unique_pairs(rows.user, rows.item, data.n_items)
        self._key = self._user * (data.n_items + 1) + self._item  # sorted
        full = np.bincount(self._user, minlength=1).max(initial=0)
        if not self._shared and full >= data.n_items:
            raise ValueError(
                f"a user has all {data.n_items} items in training, so no negative exists; drop "
                "that user or use loss='ssm'"
            )

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self._user) // self.fit.batch)

    def epoch(self, number: int) -> Iterator[PairBatch]:
        rng = np.random.default_rng([self.seed, number])
        order = rng.permutation(len(self._user))
        for at in range(0, len(order), self.fit.batch):
            rows = order[at : at + self.fit.batch]
            user, item = self._user[rows], self._item[rows]
            if self._shared:
                negative = rng.integers(1, self.data.n_items + 1, (1, self._shared))
            else:
                negative = self._unseen(user, rng)[:, None]
            yield PairBatch(*(torch.from_numpy(a) for a in (user, item, negative)))

    def _unseen(self, user: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a uniform item per entry of ``user`` among those not in the user's training."""
        n = self.data.n_items
        out = rng.integers(1, n + 1, len(user))
        wrong = np.arange(len(user))
        while len(wrong):
            key = user[wrong] * (n + 1) + out[wrong]
            at = np.minimum(np.searchsorted(self._key, key), len(self._key) - 1)
            wrong = wrong[self._key[at] == key]
            out[wrong] = rng.integers(1, n + 1, len(wrong))
        return out

    def validate(self, model: Any) -> float:
        return rank_metric(self.fit.metric, rank_targets(model, self.data, VALID))
