"""Errors of predicted ratings: early stopping and evaluation read these."""

from __future__ import annotations

import numpy as np


def rmse(rating: np.ndarray, predicted: np.ndarray) -> float:
    """Return the root of the mean squared error, in units of the rating."""
    return float(np.sqrt(np.square(np.asarray(rating, np.float64) - predicted).mean()))


def mae(rating: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean absolute error, in units of the rating."""
    return float(np.abs(np.asarray(rating, np.float64) - predicted).mean())
