"""How a set of vectors lies in space: pure measures over numpy arrays."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np


def anisotropy(vectors: np.ndarray) -> float | None:
    """Return the mean cosine over all pairs of different rows; None below two non-zero rows.

    From the sum of unit vectors: (|sum|^2 - n) / (n (n - 1)), so no sampling is needed.
    """
    unit = _unit(vectors)
    n = len(unit)
    if n < 2:
        return None
    total = unit.sum(0, dtype=np.float64)
    return float((total @ total - n) / (n * (n - 1)))


def effective_rank(vectors: np.ndarray) -> float | None:
    """Return exp(H(s / sum s)) of the singular values s (Roy & Vetterli 2007); None if all zero."""
    x = np.asarray(vectors, np.float64)
    if not x.size:
        return None
    gram = x.T @ x if x.shape[0] >= x.shape[1] else x @ x.T
    s = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0.0))
    if s.sum() <= 0:
        return None
    p = s / s.sum()
    p = p[p > 1e-12]
    return float(np.exp(-(p * np.log(p)).sum()))


def duplicate_rate(vectors: np.ndarray) -> float | None:
    """Return the share of rows that repeat an earlier row bit for bit."""
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if not len(rows):
        return None
    raw = rows.view(np.dtype((np.void, rows.shape[1] * 4))).ravel()
    return float(1 - len(np.unique(raw)) / len(rows))


def constant_columns(vectors: np.ndarray) -> int:
    """Return how many columns never change (a division by their deviation would give NaN)."""
    return int((np.ptp(vectors, axis=0) == 0).sum()) if len(vectors) else 0


def category_purity(
    vectors: np.ndarray, categories: Sequence[Collection[str]], k: int = 5, sample: int = 1000
) -> tuple[float, float] | None:
    """Return the shares of the k nearest, and of all other, rows that share a category with a row.

    The second number is what chance gives. Rows without a category take no part; at most
    ``sample`` rows ask, evenly spaced. None where fewer than k + 1 rows have a category.
    """
    norm = np.linalg.norm(vectors, axis=1)
    labelled = np.flatnonzero(np.array([len(c) > 0 for c in categories], bool) & (norm > 1e-12))
    if len(labelled) <= k:
        return None
    unit = _unit(np.asarray(vectors)[labelled])
    names = {name: i for i, name in enumerate(sorted({n for c in categories for n in c}))}
    member = np.zeros((len(labelled), len(names)), np.float32)
    for row, r in enumerate(labelled.tolist()):
        member[row, [names[n] for n in categories[r]]] = 1
    near = chance = 0.0
    asked = np.unique(np.linspace(0, len(unit) - 1, min(sample, len(unit))).astype(int))
    for row in asked.tolist():
        cos = unit @ unit[row]
        cos[row] = -np.inf
        shared = member @ member[row] > 0
        shared[row] = False
        near += float(shared[np.argpartition(-cos, k - 1)[:k]].mean())
        chance += float(shared.sum()) / (len(unit) - 1)
    return near / len(asked), chance / len(asked)


def _unit(vectors: np.ndarray) -> np.ndarray:
    x = np.asarray(vectors, np.float32)
    norm = np.linalg.norm(x, axis=1)
    some = norm > 1e-12
    return x[some] / norm[some, None]
