"""Metrics of click predictions: discrimination, likelihood, calibration."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ..train import clicks
from ..train.clicks import row_loss, user_auc

METRICS = ("auc", "gauc", "logloss", "ne", "ece")
PRIMARY = "auc"
SHOWN_PRIMARY = "iauc"  # the mean AUC over impressions, where a table has them
AUCS = frozenset({"auc", "gauc", "iauc"})
LOWER_IS_BETTER = frozenset({"logloss", "ne", "ece"})


def metrics(table: pa.Table, bins: int = 10) -> dict[str, float | None]:
    """Return all metrics of a prediction table; None (never NaN) where one is not defined.

    ``gauc_share`` is the share of users with both classes, over whom gAUC is a mean. A table with
    impressions has ``iauc`` as well.
    """
    y, p = table["label"].to_numpy(), table["p"].to_numpy()
    grouped, share = gauc(table["user"].to_numpy(), y, p)
    shown = {}
    if "impression" in table.column_names:
        values, _ = impression_auc(table)
        shown = {SHOWN_PRIMARY: float(values.mean()) if len(values) else None}
    return {
        **shown, "auc": auc(y, p), "gauc": grouped, "logloss": logloss(y, p),
        "ne": normalised_entropy(y, p), "ece": ece(y, p, bins), "gauc_share": share,
    }  # fmt: skip


def auc(label: np.ndarray, p: np.ndarray) -> float | None:
    """Return P(s+ > s-) + P(s+ = s-) / 2; None with one class only."""
    found = clicks.auc(label, p)
    return None if np.isnan(found) else found


def usual(table: pa.Table) -> tuple[str, tuple[str, ...]]:
    """Return the primary metric and all metrics of a prediction table."""
    if "impression" in table.column_names:
        return SHOWN_PRIMARY, (SHOWN_PRIMARY, *METRICS)
    return PRIMARY, METRICS


def impression_auc(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return (AUC float64[M], user int64[M]) of each user's impressions that have both classes.

    Impressions of one class have no AUC and are left out, as are rows of no known impression (0).
    """
    shown = table["impression"].to_numpy()
    known = shown > 0
    user, width = table["user"].to_numpy(), int(shown.max(initial=0)) + 1
    label, p = table["label"].to_numpy()[known], table["p"].to_numpy()[known]
    values, groups = user_auc(user[known] * width + shown[known], label, p)
    return values, groups // width


def gauc(user: np.ndarray, label: np.ndarray, p: np.ndarray) -> tuple[float | None, float | None]:
    """Return sum_u n_u AUC_u / sum_u n_u over users with both classes, and their share of users."""
    values, users = user_auc(user, label, p)
    everyone, count = np.unique(user, return_counts=True)
    if not len(everyone):
        return None, None
    if not len(users):
        return None, 0.0
    weight = count[np.isin(everyone, users)]
    return float((weight * values).sum() / weight.sum()), len(users) / len(everyone)


def logloss(label: np.ndarray, p: np.ndarray) -> float | None:
    return clicks.logloss(label, p) if len(label) else None


def entropy(rate: np.ndarray) -> np.ndarray:
    """Return H(rate) in nats, 0 at rates 0 and 1."""
    rate = np.asarray(rate, np.float64)
    inner = np.clip(rate, np.finfo(float).tiny, 1.0)
    outer = np.clip(1 - rate, np.finfo(float).tiny, 1.0)
    return -(rate * np.log(inner) + (1 - rate) * np.log(outer))


def normalised_entropy(label: np.ndarray, p: np.ndarray) -> float | None:
    """Return logloss / H(base rate): 1 = as good as the base rate. None with one class only."""
    if not len(label):
        return None
    base = float(entropy(label.mean()))
    return float(row_loss(label, p).mean()) / base if base > 0 else None


def reliability(label: np.ndarray, p: np.ndarray, bins: int = 10) -> np.ndarray:
    """Return float64[b, 3]: rows, mean prediction, observed rate of bins of equal mass.

    Equal predictions stay in one bin, so the result does not depend on the order of rows and
    fewer bins than asked may come back.
    """
    if not len(p):
        return np.zeros((0, 3))
    ordered = np.sort(p)
    inner = ordered[(np.arange(1, bins) * len(p)) // bins]  # first value of bins 2, 3, ...
    which = np.searchsorted(inner, p, side="right")
    count = np.bincount(which, minlength=bins)
    used = count > 0
    count = count[used]
    mean = np.bincount(which, p, minlength=bins)[used] / count
    rate = np.bincount(which, label, minlength=bins)[used] / count
    return np.stack([count, mean, rate], axis=1)


def ece(label: np.ndarray, p: np.ndarray, bins: int = 10) -> float | None:
    """Return the expected calibration error: mass-weighted |mean prediction - observed rate|."""
    table = reliability(label, p, bins)
    if not len(table):
        return None
    return float((table[:, 0] * np.abs(table[:, 1] - table[:, 2])).sum() / table[:, 0].sum())


def predicted_over_observed(label: np.ndarray, p: np.ndarray) -> float | None:
    """Return the mean prediction over the observed rate: 1 = calibrated as a whole."""
    rate = label.mean() if len(label) else 0.0
    return float(p.mean() / rate) if rate > 0 else None


def relaimpr(enhanced: float, base: float) -> float | None:
    """Return (AUC_e - 0.5) / (AUC_b - 0.5) - 1; None when the base does not beat chance."""
    return (enhanced - 0.5) / (base - 0.5) - 1 if base > 0.5 else None


def auc_ratio(enhanced: float, base: float) -> float | None:
    """Return AUC_e / AUC_b - 1, which some papers (FLIP) call relative improvement."""
    return enhanced / base - 1 if base > 0 else None
