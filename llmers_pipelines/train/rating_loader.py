"""Rows of a log with ratings as batches: ``label`` is the rating."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data.training import TrainingData
from . import ratings
from .ctr_loader import Loader as ClickLoader

if TYPE_CHECKING:
    from ..models.batches import CtrBatch
    from ..models.seams import Backbone


def _negative_rmse(rating: np.ndarray, predicted: np.ndarray) -> float:
    return -ratings.rmse(rating, predicted)


def _negative_mae(rating: np.ndarray, predicted: np.ndarray) -> float:
    return -ratings.mae(rating, predicted)


class Loader(ClickLoader):
    """Batches of ``backbone.fit.batch`` training rows; validation by RMSE or MAE."""

    metrics = {"rmse": _negative_rmse, "mae": _negative_mae}  # noqa: RUF012
    kind = "a rating model"

    def __init__(self, data: TrainingData, backbone: Backbone, seed: int) -> None:
        if data.rating is None or not np.isfinite(data.rating).all():
            found = "none" if data.rating is None else "some that are no number"
            raise ValueError(
                f"the log of task {data.task!r} has no rating in every row (it has {found}); a "
                "rating model is trained on TrainingData.rating"
            )
        super().__init__(dataclasses.replace(data, label=data.rating), backbone, seed)

    def output(self, model: Any, batch: CtrBatch) -> torch.Tensor:
        return model.ratings(batch).double()
