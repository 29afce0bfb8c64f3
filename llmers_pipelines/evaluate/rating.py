"""Metrics of predicted ratings: errors, which are means over rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ..train import ratings

METRICS = ("rmse", "mae")
PRIMARY = "rmse"
LOWER_IS_BETTER = frozenset(METRICS)


def metrics(table: pa.Table) -> dict[str, float | None]:
    """Return RMSE and MAE of a table of predictions; None where it has no rows."""
    if not table.num_rows:
        return dict.fromkeys(METRICS)
    rating, p = table["rating"].to_numpy(), table["p"].to_numpy()
    return {"rmse": ratings.rmse(rating, p), "mae": ratings.mae(rating, p)}


def user_errors(owner: np.ndarray, rating: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return float64[M, 2]: the sums of squared and of absolute errors of owners 0..M-1."""
    error = rating - p
    return np.stack([np.bincount(owner, error * error), np.bincount(owner, np.abs(error))], axis=1)
