"""Batches of observed pairs with sampled negatives, drawn anew in every epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ..data.training import TRAIN, VALID, TrainingData
from ..models.histories import rows_of, unique_pairs
from ..models.ranking_net import full_metric
from ..models.unseen import PAIRED, Unseen
from .batches import PairBatch


class Loader:
    """Training pairs, each once per epoch.

    For ``backbone.loss`` "bpr" and "bce" one negative per pair that is no training item of the
    user, uniform or by the popularity in training (``backbone.draw``), for "hinge"
    ``backbone.negatives`` uniform ones; for "ssm" ``backbone.negatives`` uniform items shared by
    the whole batch; else none.
    """

    def __init__(self, data: TrainingData, backbone: Any, seed: int) -> None:
        self.data, self.fit, self.seed = data, backbone.fit, seed
        rows = rows_of(data, (TRAIN,))
        self._user, self._item = unique_pairs(rows.user, rows.item, data.n_items)
        self._shared = backbone.negatives if backbone.loss == "ssm" else 0
        one = backbone.loss in PAIRED
        self._each = backbone.negatives if backbone.loss == "hinge" else 1
        self._unseen: Unseen | None = None
        if one or backbone.loss == "hinge":
            popular = one and getattr(backbone, "draw", None) == "popularity"
            self._unseen = Unseen(self._user, self._item, data.n_items, popular=popular)

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
                many = user if self._each == 1 else np.repeat(user, self._each)
                drawn = self._unseen(many, rng) if self._unseen else None
                negative = None if drawn is None else drawn.reshape(len(user), self._each)
            given = (user, item) if negative is None else (user, item, negative)
            yield PairBatch(*(torch.from_numpy(a) for a in given))

    def validate(self, model: Any) -> float:
        return full_metric(self.fit.metric, model, self.data, VALID)
