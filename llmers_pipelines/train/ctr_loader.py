"""Rows of a click log as batches, each with the history that lies strictly before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from ..data.spans import history_spans
from ..data.training import TRAIN, VALID, TrainingData
from ..models.batches import CtrBatch
from ..models.ctr_fields import history_signal
from ..models.ranking_net import device_of
from .clicks import auc, logloss

if TYPE_CHECKING:
    from ..models.seams import Backbone

EVAL_ROWS = 2048  # rows scored together; larger blocks leave the cache


def _negative_logloss(label: np.ndarray, p: np.ndarray) -> float:
    return -logloss(label, p)


METRICS = {"auc": auc, "logloss": _negative_logloss}


class Loader:
    """Batches of ``backbone.fit.batch`` training rows; validation by AUC or logloss."""

    metrics: ClassVar[Mapping[str, Callable[[np.ndarray, np.ndarray], float]]] = METRICS
    kind: ClassVar[str] = "a CTR model"

    def __init__(self, data: TrainingData, backbone: Backbone, seed: int) -> None:
        if data.label is None:
            raise ValueError(
                f"the log of task {data.task!r} has no labels; a CTR model is trained on "
                "TrainingData.label in {0, 1}"
            )
        self._metric = backbone.fit.metric
        if self._metric not in self.metrics:
            raise ValueError(
                f"fit.metric {self._metric!r} does not suit {self.kind}: use one of "
                f"{sorted(self.metrics)}"
            )
        self._batch, self._max_len, self._seed = backbone.fit.batch, backbone.max_len, seed
        self._train = np.flatnonzero(data.split == TRAIN)
        self._valid = np.flatnonzero(data.split == VALID)
        self._labels = np.asarray(data.label)
        seen, start, end = history_spans(data, self.in_history(data))
        self._start, self._end = torch.from_numpy(start), torch.from_numpy(end)
        # a last entry of padding, so that a log without history rows can be indexed too
        self._seen_item = torch.from_numpy(np.append(data.item[seen].astype(np.int64), 0))
        self._seen_rating = torch.from_numpy(np.append(history_signal(data)[seen], np.float32(0)))
        self._user = torch.from_numpy(data.user.astype(np.int64))
        self._item = torch.from_numpy(data.item.astype(np.int64))
        self._label = torch.from_numpy(data.label.astype(np.float32))
        self._scenario = None
        if data.scenario is not None:
            self._scenario = torch.from_numpy(data.scenario.codes.astype(np.int64))
        self._fields = [
            {n: torch.from_numpy(np.asarray(f.codes, np.int64)) for n, f in fields.items()}
            for fields in (data.user_fields, data.item_fields)
        ]

    def in_history(self, data: TrainingData) -> np.ndarray | None:
        """Return which rows (bool[R]) may be part of a history; None for all."""
        return None

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self._train) // self._batch)

    def epoch(self, number: int) -> Iterator[CtrBatch]:
        """Yield every training row once, in an order fixed by the seed and ``number``."""
        order = np.random.default_rng([self._seed, number]).permutation(self._train)
        for part in torch.from_numpy(order).split(self._batch):
            yield self.batch(part)

    def rows(self, rows: np.ndarray) -> Iterator[CtrBatch]:
        """Yield the given row numbers in their order, in blocks."""
        for part in torch.from_numpy(np.asarray(rows, np.int64)).split(EVAL_ROWS):
            yield self.batch(part)

    def batch(self, rows: torch.Tensor) -> CtrBatch:
        """Return the batch of ``rows`` (B,); L is the longest history in it, at most max_len."""
        start, end = self._start[rows], self._end[rows]
        length = int((end - start).clamp(1, self._max_len).max()) if len(rows) else 1
        at = end.unsqueeze(1) + torch.arange(-length, 0)  # (B, L)
        inside = at >= start.unsqueeze(1)
        at = at.clamp_(min=0)
        user, item = self._user[rows], self._item[rows]
        return CtrBatch(
            user=user, item=item, history=self._seen_item[at] * inside,
            history_rating=self._seen_rating[at] * inside, label=self._label[rows], rows=rows,
            scenario=None if self._scenario is None else self._scenario[rows],
        )  # fmt: skip

    def probabilities(self, model: Any, rows: np.ndarray) -> np.ndarray:
        """Return float64[R] click probabilities of ``rows`` in evaluation mode."""
        model.eval()
        device, out = device_of(model), []
        with torch.no_grad():
            for batch in self.rows(rows):
                out.append(self.output(model, batch.to(device)).cpu().numpy())
        return np.concatenate(out) if out else np.zeros(0)

    def output(self, model: Any, batch: CtrBatch) -> torch.Tensor:
        """Return what validation judges, float64 (B,)."""
        return torch.sigmoid(model.logits(batch).double())

    def validate(self, model: Any) -> float:
        """Return the chosen metric on the validation rows; higher is better."""
        p = self.probabilities(model, self._valid)
        return self.metrics[self._metric](self._labels[self._valid], p)

