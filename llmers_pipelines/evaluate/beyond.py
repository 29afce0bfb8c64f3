"""Beyond accuracy: what the recommended lists of all users look like together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.training import TRAIN, TrainingData
from .predict import TopK
from .slices import tail_threshold


def summary(top: TopK, data: TrainingData) -> dict[str, float | None]:
    """Return coverage, gini, entropy, novelty, arp, aplt, popularity_lift of the lists."""
    counts = data.train_counts
    tail = counts <= tail_threshold(counts[1:])
    mean_count = arp(top.items, counts)
    past = data.split == TRAIN
    history = float(counts[data.item[past]].mean()) if past.any() else None
    return {
        "coverage": coverage(top.items, data.n_items),
        "gini": gini(exposure(top.items, data.n_items)),
        "entropy": shannon(exposure(top.items, data.n_items)),
        "novelty": novelty(top.items, counts),
        "arp": mean_count,
        "aplt": aplt(top.items, tail),
        "popularity_lift": mean_count / history if history and mean_count is not None else None,
    }


def exposure(items: np.ndarray, n_items: int) -> np.ndarray:
    """Return how often each item is recommended, int64[N]; padding 0 is left out."""
    return np.bincount(items[items > 0], minlength=n_items + 1)[1:]


def coverage(items: np.ndarray, n_items: int) -> float:
    """Return the share of the N items that occur in some list."""
    return float((exposure(items, n_items) > 0).mean())


def gini(counts: np.ndarray) -> float | None:
    """Return sum_i (2i - n - 1) x_(i) / (n sum x), zeros included: 0 = even exposure."""
    x, n = np.sort(np.asarray(counts, np.float64)), len(counts)
    if not n or x.sum() == 0:
        return None
    return float(((2 * np.arange(1, n + 1) - n - 1) * x).sum() / (n * x.sum()))


def shannon(counts: np.ndarray) -> float | None:
    """Return the entropy of exposure in bits."""
    total = counts.sum()
    if total == 0:
        return None
    p = counts[counts > 0] / total
    return float(-(p * np.log2(p)).sum())


def self_information(counts: np.ndarray, smoothing: float = 1.0) -> np.ndarray:
    """Return -log2 p(i) in bits, float64[N], p from training counts plus ``smoothing``."""
    smoothed = np.asarray(counts, np.float64) + smoothing
    return -np.log2(smoothed / smoothed.sum())


def novelty(items: np.ndarray, counts: np.ndarray, smoothing: float = 1.0) -> float | None:
    """Return the mean self-information of recommended items; ``counts`` is int64[N + 1]."""
    shown = items[items > 0]
    bits = self_information(counts[1:], smoothing)
    return float(bits[shown - 1].mean()) if len(shown) else None


def arp(items: np.ndarray, counts: np.ndarray) -> float | None:
    """Return the mean training count of recommended items; ``counts`` is int64[N + 1]."""
    shown = items[items > 0]
    return float(counts[shown].mean()) if len(shown) else None


def aplt(items: np.ndarray, tail: np.ndarray) -> float | None:
    """Return the share of recommended items that are tail; ``tail`` is bool[N + 1]."""
    shown = items[items > 0]
    return float(tail[shown].mean()) if len(shown) else None


def intra_list_distance(items: np.ndarray, vectors: np.ndarray) -> float | None:
    """Return the mean over lists of the mean 1 - cos over pairs of a list.

    ``vectors`` float[N + 1, E] must not be the space that the model ranks in: a model looks
    diverse or narrow in its own space by construction. Zero vectors count as distance 1.
    """
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norm, out=np.zeros_like(vectors, np.float64), where=norm > 0)
    full = items[(items > 0).sum(axis=1) > 1]
    if not len(full):
        return None
    shown = (full > 0)[:, :, None] * unit[full]  # M, k, E
    length = (full > 0).sum(axis=1)
    total = (shown.sum(axis=1) ** 2).sum(axis=1) - (shown**2).sum(axis=(1, 2))
    return float((1 - total / (length * (length - 1))).mean())


def calibration(p: np.ndarray, q: np.ndarray, alpha: float = 0.01) -> np.ndarray:
    """Return KL(p || (1 - alpha) q + alpha p) in nats per row (Steck, RecSys 2018, eq. 6).

    p float[..., C] is the user's distribution over categories, q that of the list.
    """
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    mixed = (1 - alpha) * q + alpha * p
    ratio = np.divide(p, mixed, out=np.ones_like(p), where=p > 0)
    return (p * np.log(ratio)).sum(axis=-1)


def category_shares(items: np.ndarray, membership: np.ndarray) -> np.ndarray:
    """Return float64[M, C], the category distribution of each list; 0 everywhere if it has none.

    ``membership`` is 0/1 [N + 1, C]; an item of several categories splits its weight.
    """
    total = membership.sum(axis=1, keepdims=True)
    share = np.divide(membership, total, out=np.zeros(membership.shape), where=total > 0)
    share[0] = 0
    summed = share[items].sum(axis=1)
    mass = summed.sum(axis=1, keepdims=True)
    return np.divide(summed, mass, out=np.zeros_like(summed), where=mass > 0)


def serendipity(top: TopK, usual: TopK, targets: dict[int, set[int]]) -> float | None:
    """Return the share of users with a hit that the list ``usual`` would not have given.

    ``usual``: what needs no personal model, such as the most popular unseen items. ``targets``:
    user -> relevant items; users without any are left out.
    """
    if not np.array_equal(top.users, usual.users):
        raise ValueError("the two lists are of different users")
    found = [
        bool((set(own.tolist()) - set(plain.tolist())) & targets[u])
        for u, own, plain in zip(top.users.tolist(), top.items, usual.items, strict=True)
        if targets.get(u)
    ]
    return float(np.mean(found)) if found else None


def category_entropy(items: np.ndarray, membership: np.ndarray) -> float | None:
    """Return the mean entropy in bits of the categories of each list; see ``category_shares``."""
    shares = category_shares(items, membership)
    shares = shares[shares.sum(axis=1) > 0]
    if not len(shares):
        return None
    bits = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return float(-(shares * bits).sum(axis=1).mean())


def gap(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Return (largest - smallest, smallest / largest) of one metric over groups of users or items.

    None where fewer than two groups have a value, or where none is above 0.
    """
    known = [v for v in values if v is not None]
    if len(known) < 2:
        return None, None
    low, high = min(known), max(known)
    return high - low, low / high if high > 0 else None


def stability(first: TopK, second: TopK) -> float | None:
    """Return the mean Jaccard overlap of the lists of two runs over the same users."""
    if not np.array_equal(first.users, second.users):
        raise ValueError("the two runs recommend to different users")
    overlap = [
        len(a & b) / len(a | b)
        for x, y in zip(first.items, second.items, strict=True)
        if (a := set(x[x > 0].tolist())) | (b := set(y[y > 0].tolist()))
    ]
    return float(np.mean(overlap)) if overlap else None
