"""Gaussian random projection: the reducer without a fit (LLM2X, and a control for PCA)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.vectors import VectorTable
from .derivation import Derivation, Given, project


@dataclass(frozen=True)
class RandomProjection(Derivation):
    """Multiply by a fixed matrix of N(0, 1/dim) entries, which keeps distances in expectation.

    The matrix depends on the two widths and ``seed`` alone, so nothing is kept.
    """

    dim: int = 64
    seed: int = 0

    def make(self, given: Given) -> tuple[VectorTable, dict[str, Any]]:
        table = given.vectors
        self.check_width(self.dim, table)
        # RandomState: its stream is frozen, a Generator's may change with numpy.
        draw = np.random.RandomState(self.seed).standard_normal((table.dim, self.dim))
        out = project(table, draw / np.sqrt(self.dim), np.zeros(table.dim))
        return out, {"seed": self.seed, "from": table.dim}
