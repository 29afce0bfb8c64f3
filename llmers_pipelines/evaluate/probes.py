"""What vectors of items say by themselves, before any recommender is trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.training import TEST, TRAIN, TrainingData
from ..data.vectors import VectorTable
from ..models.histories import history_before, rows_of

PAIRS = 20_000  # pairs of items that a probe draws at most
USERS = 2_000  # users, and rows, that a probe draws at most


def by_position(table: VectorTable, data: TrainingData) -> np.ndarray:
    """Return the vectors of items float32[N + 1, E] by position; zero where there is none."""
    out = np.zeros((data.n_items + 1, table.vectors.shape[1]), np.float32)
    at = data.items.index(table.ids)
    known = (at > 0) & table.mask
    out[at[known]] = table.vectors[known]
    return out


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Return float64 rows of length 1; zero rows stay zero."""
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norm, out=np.zeros(vectors.shape, np.float64), where=norm > 0)


def retrieval(
    vectors: np.ndarray, data: TrainingData, k: int = 10, split: int = TEST
) -> float | None:
    """Return the share of targets among the ``k`` nearest unseen items of the newest one.

    ``vectors`` float[N + 1, E], row 0 padding; ties count half a place, as in ``rank_table``.
    Users with a history and a target count, of more than ``USERS`` so many drawn ones.
    """
    unit = unit_rows(vectors)
    seen, targets = history_before(data, split), rows_of(data, (split,))
    hits = []
    users = np.flatnonzero((seen.counts > 0) & (targets.counts > 0))
    for user in np.random.default_rng(0).permutation(users)[:USERS]:
        past = seen.of(user)
        scores = unit @ unit[past[-1]]
        scores[past] = scores[0] = -np.inf
        for item in targets.of(user):
            if item not in past:
                above = (scores > scores[item]).sum() + (scores == scores[item]).sum() / 2 + 0.5
                hits.append(above <= k)
    return float(np.mean(hits)) if hits else None


def together(
    vectors: np.ndarray, data: TrainingData, split: int = TEST, seed: int = 0
) -> float | None:
    """Return Spearman's correlation of cosine and co-occurrence over pairs of items.

    Two items occur together where one user has both, one of them in the held-out ``split``, so that
    what the vectors were fitted on does not count. As many pairs that never occur are drawn.
    """
    from scipy.sparse import csr_matrix
    from scipy.stats import spearmanr

    shape = (data.n_users + 1, data.n_items + 1)

    def matrix(splits: tuple[int, ...]) -> Any:
        rows = rows_of(data, splits)
        made = csr_matrix((np.ones(len(rows.item)), (rows.user, rows.item)), shape)
        made.data[:] = 1
        return made

    counts = (matrix((split,)).T @ matrix((TRAIN, split))).tocoo()
    apart = counts.row != counts.col
    one, two, count = counts.row[apart], counts.col[apart], counts.data[apart]
    if len(count) < 3:
        return None
    rng = np.random.default_rng(seed)
    some = rng.permutation(len(count))[: PAIRS // 2]
    drawn = rng.integers(1, data.n_items + 1, (len(some), 2))
    known = set((one.astype(np.int64) * shape[1] + two).tolist())
    key = drawn[:, 0] * shape[1] + drawn[:, 1]
    fresh = np.array([k not in known for k in key.tolist()]) & (drawn[:, 0] != drawn[:, 1])
    a = np.concatenate([one[some], drawn[fresh, 0]])
    b = np.concatenate([two[some], drawn[fresh, 1]])
    value = np.concatenate([count[some], np.zeros(fresh.sum())])
    unit = unit_rows(vectors)
    found = spearmanr((unit[a] * unit[b]).sum(1), value)[0]
    return None if np.isnan(found) else float(found)


def alignment(one: np.ndarray, two: np.ndarray) -> float:
    """Return the mean squared distance of unit rows that belong together (Wang, Isola 2020)."""
    return float(((unit_rows(one) - unit_rows(two)) ** 2).sum(1).mean())


def uniformity(vectors: np.ndarray, t: float = 2.0) -> float:
    """Return ``log mean exp(-t |x - y|^2)`` over pairs of unit rows (Wang, Isola 2020); <= 0.

    Of more than ``USERS`` rows so many drawn ones count.
    """
    unit = unit_rows(np.random.default_rng(0).permutation(vectors)[:USERS])
    squared = 2 - 2 * (unit @ unit.T)[np.triu_indices(len(unit), 1)]
    return float(np.log(np.exp(-t * np.maximum(squared, 0)).mean()))


def attribute(
    vectors: np.ndarray, values: Sequence[str | None], folds: int = 5, seed: int = 0
) -> tuple[float, float] | None:
    """Return how often a value is read off frozen rows, and how often the most common one is right.

    A multinomial logistic regression (weight decay 1, standardized columns) over ``folds`` folds;
    of more than ``USERS`` rows so many drawn ones count. Values that fewer than ``folds`` rows
    have, rows without one and zero rows take no part. None where fewer than two values are left.
    """
    held = np.array([v or "" for v in values])
    names, counts = np.unique(held[held != ""], return_counts=True)
    names = names[counts >= folds]
    rows = np.flatnonzero(np.isin(held, names) & np.asarray(vectors).any(axis=1))
    rng = np.random.default_rng(seed)
    rows = rng.permutation(rows)[:USERS]
    names, label = np.unique(held[rows], return_inverse=True)
    if len(names) < 2 or len(rows) < 2 * folds:
        return None
    x = np.asarray(vectors, np.float64)[rows]
    fold = np.empty(len(rows), np.int64)  # the rows of each value are dealt over the folds
    fold[np.argsort(label, kind="stable")] = np.arange(len(rows)) % folds
    right = 0
    for number in range(folds):
        train = fold != number
        mean, spread = x[train].mean(0), x[train].std(0)
        scaled = (x - mean) / np.where(spread > 1e-9, spread, 1.0)
        weights = regressed(scaled[train], label[train], len(names))
        said = scaled[~train] @ weights[:-1] + weights[-1]
        right += int((said.argmax(1) == label[~train]).sum())
    return right / len(rows), float(np.bincount(label).max() / len(rows))


def regressed(x: np.ndarray, label: np.ndarray, classes: int, decay: float = 1.0) -> np.ndarray:
    """Return weights float64[E + 1, C], the last row the bias, of a softmax regression.

    Minimizes ``sum cross-entropy + decay / 2 |W|^2`` over x float64[n, E]; the bias is free.
    """
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    truth = np.eye(classes)[label]
    shape = (x.shape[1] + 1, classes)

    def cost(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(shape)
        log_p = log_softmax(x @ w[:-1] + w[-1], axis=1)
        error = np.exp(log_p) - truth
        slope = np.concatenate([x.T @ error + decay * w[:-1], error.sum(0)[None]])
        return float(-(truth * log_p).sum() + decay / 2 * (w[:-1] ** 2).sum()), slope.ravel()

    start = np.zeros(shape[0] * classes)
    found = minimize(cost, start, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return found.x.reshape(shape)
