"""The positions whose noise score stands out (LLM4DSR, arXiv:2408.08208)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ..data.training import TrainingData
from ..data.views import injected_places
from .derivation import DerivedTable, Given


@dataclass(frozen=True)
class NoisyPositions(DerivedTable):
    """Positions above the ``percentile`` of all scores, at most ``most`` of a window.

    Of each window the ``top`` highest scores are looked at; a score must exceed the threshold
    (linear between ranks, over all scored positions), so a percentile of 1 selects none. Ties in a
    window go to the earlier position. Sources: the scores and the splits.
    """

    rows: ClassVar[str] = "positions"

    percentile: float = 0.6
    top: int = 3
    most: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.percentile <= 1 or self.top < 1 or self.most < 0:
            raise ValueError(
                f"NoisyPositions(percentile={self.percentile}, top={self.top}, most={self.most}): "
                "percentile in [0, 1], top at least 1, most at least 0"
            )

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        """Return the selected rows of the scores, in their order."""
        scores = given.table()
        value = scores["logp"].to_numpy().astype(np.float64)
        if not len(value):
            return scores, {"threshold": 0.0, "scored": 0, "selected": 0}
        threshold = float(np.quantile(value, self.percentile))
        pairs = zip(scores["user_id"].to_pylist(), scores["window"].to_pylist(), strict=True)
        _, group = np.unique([f"{u}@{w}" for u, w in pairs], return_inverse=True)
        position = scores["position"].to_numpy()
        order = np.lexsort((position, -value, group))
        place = np.arange(len(order)) - np.searchsorted(group[order], group[order])
        chosen = order[(place < min(self.top, self.most)) & (value[order] > threshold)]
        table = scores.take(np.sort(chosen))
        told = {"threshold": threshold, "scored": len(value), "selected": len(chosen)}
        return table, {**told, **found_noise(table, scores, given.log)}


def found_noise(chosen: pa.Table, scored: pa.Table, log: TrainingData) -> dict[str, float]:
    """Return recall and precision of chosen positions against items that were planted in ``log``.

    Empty where none were. Recall counts planted positions that have a score; ``by_chance`` is the
    precision of as many random positions.
    """
    planted = injected_places(log)
    if not planted:
        return {}

    def places(table: pa.Table) -> set[tuple[int, int]]:
        users = log.users.index(table["user_id"].to_pylist())
        return set(zip(users.tolist(), table["position"].to_pylist(), strict=True))

    every, found = places(scored), places(chosen)
    there = planted & every
    return {
        "injected": len(planted), "injected_scored": len(there),
        "recall": len(found & there) / max(1, len(there)),
        "precision": len(found & there) / max(1, len(found)),
        "by_chance": len(there) / max(1, len(every)),
    }  # fmt: skip
