"""Beyond accuracy: what the recommended lists of all users look like together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.training import TEST, TRAIN, TrainingData
from ..models.histories import distinct, history_before, within
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
    unit[0] = 0
    full = items[(items > 0).sum(axis=1) > 1]
    if not len(full):
        return None
    length = (full > 0).sum(axis=1)
    total = (_summed(full, unit) ** 2).sum(axis=1) - (unit**2).sum(axis=1)[full].sum(axis=1)
    return float((1 - total / (length * (length - 1))).mean())


def _summed(items: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the sum over each list of ``rows`` [N + 1, E], [M, E], place by place."""
    total = np.zeros((len(items), rows.shape[1]))
    for column in items.T:
        total += rows[column]
    return total


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
    return _to_one(_summed(items, _of_items(membership)))


def _of_items(membership: np.ndarray) -> np.ndarray:
    share = _to_one(membership.astype(np.float64))
    share[0] = 0
    return share


def _to_one(values: np.ndarray) -> np.ndarray:
    mass = values.sum(axis=1, keepdims=True)
    return np.divide(values, mass, out=np.zeros_like(values), where=mass > 0)


def history_shares(data: TrainingData, membership: np.ndarray) -> np.ndarray:
    """Return float64[U + 1, C], the categories of what each user had met before the test."""
    from scipy.sparse import csr_matrix

    seen = history_before(data, TEST)
    ones = np.ones(len(seen.user))
    met = csr_matrix((ones, (seen.user, seen.item)), (data.n_users + 1, data.n_items + 1))
    return _to_one(met @ _of_items(membership))


def category_summary(
    top: TopK, membership: np.ndarray, data: TrainingData
) -> dict[str, float | None]:
    """Return category_distance, category_entropy, calibration (means over lists).

    ``membership`` is 0/1 [N + 1, C]. A user is in the calibration whose history and whose list
    both have a category.
    """
    wanted = history_shares(data, membership)[top.users]
    given = category_shares(top.items, membership)
    both = (wanted.sum(axis=1) > 0) & (given.sum(axis=1) > 0)
    misfit = calibration(wanted[both], given[both])
    return {
        "category_distance": intra_list_distance(top.items, membership.astype(np.float64)),
        "category_entropy": category_entropy(top.items, membership),
        "calibration": float(misfit.mean()) if both.any() else None,
    }


# What a report says of a column that does not speak for itself.
NOTES = {
    "category_distance": "Category distance: 1 - cosine of the categories of two items of a list.",
    "category_entropy": "Category entropy: bits, of a list.",
    "calibration": "Calibration: KL divergence of a list's categories from those of the user's "
    "history, nats; 0 is a list like the history.",
    "overlap_with_base": "Overlap with base: Jaccard of both lists of a user.",
    "stability": "Stability: the same of two trainings under different seeds.",
}


def serendipity(top: TopK, usual: TopK, user: np.ndarray, item: np.ndarray) -> float | None:
    """Return the share of users with a hit that the list ``usual`` would not have given.

    ``usual``: what needs no personal model, such as the most popular unseen items. ``user``,
    ``item`` (int64[T]): the relevant pairs; users without any are left out.
    """
    if not np.array_equal(top.users, usual.users):
        raise ValueError("the two lists are of different users")
    width = 1 + max(items.max(initial=0) for items in (top.items, usual.items, item))
    wanted = distinct(user * width + item)
    own, plain = (lists.users[:, None] * width + lists.items for lists in (top, usual))
    new = within(own.ravel(), wanted) & ~within(own.ravel(), np.sort(plain.ravel()))
    asked = within(top.users, distinct(user))
    return float(new.reshape(own.shape)[asked].any(axis=1).mean()) if asked.any() else None


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
    n = len(first.users)
    width = 1 + max(first.items.max(initial=0), second.items.max(initial=0))
    row = np.arange(n)[:, None] * width
    a, b = (distinct((row + items)[items > 0]) for items in (first.items, second.items))
    both, one, other = (np.bincount(keys // width, minlength=n) for keys in (a[within(a, b)], a, b))
    either = one + other - both
    full = either > 0
    return float((both[full] / either[full]).mean()) if full.any() else None
