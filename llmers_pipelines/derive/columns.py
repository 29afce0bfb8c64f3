"""Column selection (LLMInit): some of an encoder's own columns instead of a rotation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.training import TrainingData
from ..data.vectors import VectorTable
from .derivation import Derivation, Given, project
from .kept import kept_fit

HOW = ("var", "uni", "rand")


@dataclass(frozen=True)
class ColumnSelect(Derivation):
    """Keep ``dim`` columns, in ascending order.

    ``var``: largest variance over the ``popular`` share of items with most training interactions.
    ``uni``: every floor(E/dim)-th column. ``rand``: a seeded draw without repetition (the released
    code repeats columns). ``standardize`` brings the kept columns to mean 0 and deviation 1 over
    rows with text; a constant column stays constant. The choice is kept until ``version`` rises.
    """

    dim: int = 64
    how: str = "var"
    standardize: bool = False
    popular: float = 0.2
    seed: int = 0
    version: int = 1

    def __post_init__(self) -> None:
        if self.how not in HOW:
            raise ValueError(f"ColumnSelect(how={self.how!r}): expected one of {', '.join(HOW)}")

    def make(self, given: Given) -> tuple[VectorTable, dict[str, Any]]:
        table = given.vectors
        self.check_width(self.dim, table)
        rows = np.flatnonzero(table.mask)
        counts = None
        if self.how == "var":
            counts = _interactions(table, given.log)
        name = (
            f"columns__dim{self.dim}__{self.how}__std{int(self.standardize)}"
            f"__popular{self.popular}__seed{self.seed}__v{self.version}"
        )
        kept = kept_fit(
            given.state_folder, name, table, rows, lambda r: self._fit(table, r, counts)
        )
        columns = kept.arrays["columns"]
        matrix = np.zeros((table.dim, self.dim))
        matrix[columns, np.arange(self.dim)] = kept.arrays["scale"]
        offset = np.zeros(table.dim)
        offset[columns] = kept.arrays["offset"]
        info = {k: v for k, v in kept.info.items() if k != "anchor_ids"}
        return project(table, matrix, offset), {**info, "reused": kept.reused}

    def _fit(
        self, table: VectorTable, rows: np.ndarray, counts: np.ndarray | None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        used = 0
        if counts is not None:
            top = most_interacted(counts[rows], self.popular)
            used = len(top)
            columns = by_variance(np.asarray(table.vectors[rows[top]]), self.dim)
        elif self.how == "uni":
            columns = evenly(table.dim, self.dim)
        else:
            # RandomState: its stream is frozen, a Generator's may change with numpy.
            drawn = np.random.RandomState(self.seed).permutation(table.dim)[: self.dim]
            columns = np.sort(drawn)
        offset, scale = np.zeros(self.dim), np.ones(self.dim)
        if self.standardize:
            kept = np.asarray(table.vectors[rows][:, columns], np.float64)
            offset, spread = kept.mean(0), kept.std(0)
            constant = spread <= 1e-6 * np.maximum(np.abs(offset), 1e-6)
            scale = 1 / np.where(constant, 1.0, spread)
        arrays = {"columns": columns.astype(np.int64), "offset": offset, "scale": scale}
        return arrays, {"columns": columns.tolist(), "popular_rows": used}


def by_variance(vectors: np.ndarray, dim: int) -> np.ndarray:
    """Return the ``dim`` columns of largest sample variance, ascending; ties by lower index."""
    variance = np.asarray(vectors, np.float64).var(0, ddof=1)
    return np.sort(np.argsort(-variance, kind="stable")[:dim])


def evenly(width: int, dim: int) -> np.ndarray:
    """Return the first ``dim`` of every floor(width/dim)-th column."""
    return np.arange(dim) * (width // dim)


def most_interacted(counts: np.ndarray, share: float) -> np.ndarray:
    """Return the rows of the largest ``share`` of ``counts``, at least two; ties by lower row."""
    n = max(2, math.ceil(share * len(counts)))
    if len(counts) < 2:
        raise ValueError(f"a variance needs two items with text; found {len(counts)}")
    return np.argsort(-counts, kind="stable")[:n]


def _interactions(table: VectorTable, log: TrainingData) -> np.ndarray:
    """Return int64[n]: training interactions of each row's item (0 where unknown)."""
    if table.entity != "item":
        raise ValueError("ColumnSelect(how='var') reads item vectors; use 'uni' or 'rand'")
    counts = log.train_counts.copy()
    counts[0] = 0
    return counts[log.items.index(table.ids)]
