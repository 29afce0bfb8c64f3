"""PCA of text vectors to the width of a backbone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.training import TRAIN, TrainingData
from ..data.vectors import VectorTable
from .derivation import CHUNK, Derivation, Given, project
from .kept import kept_fit


@dataclass(frozen=True)
class PCA(Derivation):
    """Project on the first ``dim`` principal axes of the rows that have a text of their own.

    ``fit="reuse"`` keeps the fit: new rows are projected, old ones do not move, until ``version``
    is raised. ``fit="refit"`` fits at every run. ``on="warm"`` fits on entities with training
    interactions alone (cold-start studies). Each axis is signed so that its loading of largest
    magnitude is positive (LLM2X card). Directions without variance give columns of zeros.
    """

    dim: int = 64
    fit: str = "reuse"
    on: str = "all"
    version: int = 1

    def __post_init__(self) -> None:
        if self.fit not in ("reuse", "refit") or self.on not in ("all", "warm"):
            raise ValueError(
                f"PCA(fit={self.fit!r}, on={self.on!r}): expected fit 'reuse' or 'refit' and on "
                "'all' or 'warm'"
            )

    def make(self, given: Given) -> tuple[VectorTable, dict[str, Any]]:
        table = given.vectors
        self.check_width(self.dim, table)
        allowed = table.mask
        if self.on == "warm":
            allowed = allowed & warm(table, given.log)
        folder = given.state_folder if self.fit == "reuse" else None
        name = f"pca__dim{self.dim}__{self.on}__v{self.version}"
        kept = kept_fit(
            folder, name, table, np.flatnonzero(allowed),
            lambda rows: fit_pca(table.vectors, rows, self.dim),
        )  # fmt: skip
        out = project(table, kept.arrays["components"].T, kept.arrays["mean"])
        info = {k: v for k, v in kept.info.items() if k != "anchor_ids"}
        return out, {**info, "reused": kept.reused, "components": kept.arrays["components"]}


def warm(table: VectorTable, log: TrainingData) -> np.ndarray:
    """Return bool[n]: rows of ``table`` whose entity has a training interaction."""
    ids, seen = (log.items, log.item) if table.entity == "item" else (log.users, log.user)
    trained = np.zeros(len(ids) + 1, bool)
    trained[seen[log.split == TRAIN]] = True
    trained[0] = False
    return trained[ids.index(table.ids)]


def fit_pca(
    vectors: np.ndarray, rows: np.ndarray, dim: int
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return mean float64[E], components float64[dim, E] and the explained variance.

    The covariance is summed in chunks in float64, so the table may be larger than memory.
    """
    from scipy.linalg import eigh

    width = vectors.shape[1]
    total = np.zeros(width)
    for part in _chunks(vectors, rows):
        total += part.sum(0)
    mean = total / len(rows)
    covariance = np.zeros((width, width))
    for part in _chunks(vectors, rows):
        part = part - mean
        covariance += part.T @ part
    covariance /= max(1, len(rows) - 1)
    values, axes = eigh(covariance, subset_by_index=[width - dim, width - 1])
    values, axes = np.maximum(values[::-1], 0.0), axes[:, ::-1].T
    sign = np.sign(axes[np.arange(dim), np.abs(axes).argmax(1)])
    spread = float(np.trace(covariance))
    # Below rounding an axis is arbitrary: zero it instead of keeping a random direction.
    real = values > 1e-10 * max(values[0], 1e-300)
    components = np.where(real[:, None], axes * sign[:, None], 0.0)
    share = values * real / spread if spread > 0 else np.zeros(dim)
    info = {
        "explained_variance": float(share.sum()),
        "explained_variance_ratio": [round(float(s), 6) for s in share],
        "axes": int(real.sum()),
    }
    return {"mean": mean, "components": components}, info


def _chunks(vectors: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), CHUNK):
        yield np.asarray(vectors[rows[start : start + CHUNK]], np.float64)
