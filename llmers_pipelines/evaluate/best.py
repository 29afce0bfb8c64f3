"""The best items of each row of a block of scores."""

from __future__ import annotations

import numpy as np


def best_items(scores: np.ndarray, row: np.ndarray, item: np.ndarray, k: int) -> np.ndarray:
    """Return int64[B, k]: the best items of each row, best first, equal scores by position.

    scores [B, N + 1] without NaN beyond column 0, which is padding; ``row`` and ``item``
    (int64[G]) are the places that are no candidates. 0 where candidates run out.
    """
    x = scores.copy()
    x[:, 0] = -np.inf
    x[row, item] = -np.inf
    least = _bound(x, k)
    chosen = x >= least
    chosen[:, 0] = False
    chosen[row, item] = False  # a candidate may have a score of -inf
    if np.count_nonzero(chosen) > 4 * k * len(x):  # of many equal ones the first k are enough
        tie = chosen & (x == least)
        chosen &= ~tie | (np.cumsum(tie, axis=1, dtype=np.int32) <= k)
    place = np.flatnonzero(chosen)
    of = place // x.shape[1]
    order = np.lexsort((-x.ravel()[place], of))  # stable
    of, place = of[order], place[order]
    nth = np.arange(len(of)) - of.searchsorted(np.arange(len(x)))[of]
    first = nth < k
    lists = np.zeros((len(x), k), np.int64)
    lists[of[first], nth[first]] = place[first] - of[first] * x.shape[1]
    return lists


def _bound(x: np.ndarray, k: int) -> np.ndarray:
    """Return [B, 1]: at most the k-th largest of each row, and near it.

    It is the k-th largest of maxima over disjoint groups of columns: k groups reach it, so k
    columns do. Maxima of strips cost a third of a partition of the whole row.
    """
    width = min(x.shape[1], 16 * k)
    top = x[:, :width].copy()
    for low in range(width, x.shape[1] - width + 1, width):
        np.maximum(top, x[:, low : low + width], out=top)
    at = max(width - k, 0)
    return np.partition(top, at, axis=1)[:, at : at + 1]
