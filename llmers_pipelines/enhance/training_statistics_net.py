"""The recorder of scores. Shapes: P training pairs, M recorded epochs."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from ..data.training import TRAIN, TrainingData
from ..models.batches import PairBatch
from ..models.histories import rows_of, unique_pairs
from ..models.ranking_net import device_of, kept
from ..models.unseen import Unseen

ROWS = 8192  # pairs scored at a time


class TrainingStatisticsHook(nn.Module):
    """Scores all pairs at the beginning of each epoch but the first."""

    def __init__(self, data: TrainingData, last: int, extreme: float, seed: int) -> None:
        super().__init__()
        rows = rows_of(data, (TRAIN,))
        self.user, self.item = unique_pairs(rows.user, rows.item, data.n_items)
        unseen = Unseen(self.user, self.item, data.n_items)
        self.negative = unseen(self.user, np.random.default_rng([seed, 19]))
        self.data, self.extreme = data, extreme
        self.epochs: deque[np.ndarray] = deque(maxlen=last)  # float32 (2, P) each

    def begin_epoch(self, model: Any, number: int) -> None:
        if number > 1:
            self.epochs.append(self.scores(model))

    def recorded(self) -> dict[str, torch.Tensor]:
        """Return what a training that is begun anew must still know: float32 (M, 2, P)."""
        return {"scores": torch.from_numpy(np.stack(self.epochs))} if self.epochs else {}

    def recall(self, told: dict[str, torch.Tensor]) -> None:
        """Take over what ``recorded`` gave."""
        self.epochs.clear()
        self.epochs.extend(told["scores"].numpy() if told else ())

    def scores(self, model: Any) -> np.ndarray:
        """Return float32 (2, P): what the model gives each pair and its negative now."""
        out = np.empty((2, len(self.user)), np.float32)
        with kept(model):
            device = device_of(model)
            for at in range(0, len(self.user), ROWS):
                part = slice(at, at + ROWS)
                user, item, other = (
                    torch.from_numpy(a[part]).to(device)
                    for a in (self.user, self.item, self.negative)
                )
                states = model.user_state(PairBatch(user, item, other[:, None]))
                for row, ids in enumerate((item, other)):
                    out[row, part] = model.pair_scores(states, ids).cpu().numpy()
        return out

    def beside(self) -> pa.Table:
        """Return the statistics of all pairs; none where no epoch was recorded."""
        ids, names = self.data.items.ids, self.data.users.ids
        user, item, negative = self.user, self.item, self.negative
        if not self.epochs:
            user, item, negative = user[:0], item[:0], negative[:0]
        found = statistics(np.stack(self.epochs), self.extreme) if self.epochs else {}
        return pa.table({
            "user_id": pa.array([names[u - 1] for u in user], pa.string()),
            "item_id": pa.array([ids[i - 1] for i in item], pa.string()),
            "negative_id": pa.array([ids[i - 1] for i in negative], pa.string()),
            **{n: pa.array(found.get(n, np.zeros(0)), pa.float64()) for n in FLOATS},
            **{n: pa.array(found.get(n, np.zeros(0, int)), pa.int64()) for n in COUNTS},
        })  # fmt: skip

    def fold(self, model: Any) -> None:
        """The recorder ends with training."""


FLOATS = ("positive_mean", "positive_variance", "negative_mean", "negative_variance", "loss")
COUNTS = ("epochs", "low_epochs", "high_epochs")


def statistics(scores: np.ndarray, extreme: float) -> dict[str, np.ndarray]:
    """Return the columns of the table from scores (M, 2, P) of pairs and their negatives."""
    wide = scores.astype(np.float64)
    positive, negative = wide[:, 0], wide[:, 1]
    count = int(extreme * positive.shape[1])
    low, high = np.zeros((2, positive.shape[1]), np.int64)
    for plus, minus in zip(positive, negative, strict=True):
        low[np.argsort(plus, kind="stable")[:count]] += 1
        high[np.argsort(-minus, kind="stable")[:count]] += 1
    return {
        "positive_mean": positive.mean(0), "positive_variance": positive.var(0),
        "negative_mean": negative.mean(0), "negative_variance": negative.var(0),
        "loss": np.logaddexp(0, negative - positive).mean(0),
        "epochs": np.full(positive.shape[1], len(wide)), "low_epochs": low, "high_epochs": high,
    }  # fmt: skip
