"""Discrimination and likelihood of click predictions: early stopping and evaluation read these."""

from __future__ import annotations

import numpy as np

CLIP = 1e-7


def auc(label: np.ndarray, score: np.ndarray) -> float:
    """Return P(s+ > s-) + P(s+ = s-) / 2; NaN with one class only or scores that are not finite."""
    if not np.isfinite(score).all():
        return float("nan")
    values, _ = user_auc(np.zeros(len(label), np.int64), np.asarray(label) > 0.5, score)
    return float(values[0]) if len(values) else float("nan")


def user_auc(user: np.ndarray, label: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (AUC float64[M], users int64[M]) of the users who have both classes, sorted."""
    order = np.lexsort((p, user))
    user, y, p = user[order], label[order], p[order]
    users, start, count = np.unique(user, return_index=True, return_counts=True)
    if not len(users):
        return np.zeros(0), users
    owner = np.repeat(np.arange(len(users)), count)
    new = np.ones(len(p), bool)
    new[1:] = (owner[1:] != owner[:-1]) | (p[1:] != p[:-1])
    group = np.cumsum(new) - 1
    place = np.arange(len(p)) - start[owner] + 1.0
    place = (np.bincount(group, place) / np.bincount(group))[group]  # ties share their mean rank
    positives = np.add.reduceat(y.astype(np.float64), start)
    both = (positives > 0) & (positives < count)
    wins = np.add.reduceat(place * y, start) - positives * (positives + 1) / 2
    return wins[both] / (positives * (count - positives))[both], users[both]


def row_loss(label: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return -log p(label) per row, float64[R], with p clipped to [1e-7, 1 - 1e-7]."""
    p = np.clip(np.asarray(p, np.float64), CLIP, 1 - CLIP)
    return -np.where(np.asarray(label) > 0.5, np.log(p), np.log1p(-p))


def logloss(label: np.ndarray, p: np.ndarray) -> float:
    """Return the mean binary cross-entropy of probabilities, clipped at 1e-7."""
    return float(row_loss(label, p).mean())
