"""Users as decayed means of their items' vectors (LLMSeqSim's session vector)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..data.training import HISTORY, TRAIN
from ..data.vectors import VectorTable
from .click_sequences import behaviours
from .derivation import Derivation, Given

DECAYS = ("none", "linear", "scaled", "scaled2", "scaled3", "log", "harmonic", "harmonic2", "last")


def decay_weights(decay: str, length: int) -> np.ndarray:
    """Return float64[length], oldest first; age a = 1 for the newest of L items (LLMSeqSim).

    none 1; linear max(1e-5, 1 - 0.1 (a-1)); scaled 1 - (a-1)/L, and its square and cube;
    log 1/(ln a + 1); harmonic 1/a, and its square; last: the newest alone.
    """
    age = np.arange(length, 0, -1, dtype=np.float64)
    match decay:
        case "none":
            return np.ones(length)
        case "linear":
            return np.maximum(1e-5, 1 - 0.1 * (age - 1))
        case "scaled" | "scaled2" | "scaled3":
            power = {"scaled": 1, "scaled2": 2, "scaled3": 3}[decay]
            return (1 - (age - 1) / length) ** power
        case "log":
            return 1 / (np.log(age) + 1)
        case "harmonic":
            return 1 / age
        case "harmonic2":
            return 1 / age**2
        case "last":
            return (age == 1).astype(np.float64)
    raise ValueError(f"decay {decay!r}: expected one of {', '.join(DECAYS)}")


def pool_history(vectors: np.ndarray, decay: str) -> np.ndarray:
    """Return float64[E], the weighted mean of vectors (L, E), oldest first."""
    weights = decay_weights(decay, len(vectors))
    return weights @ np.asarray(vectors, np.float64) / weights.sum()


@dataclass(frozen=True)
class HistoryPooling(Derivation):
    """One vector per user: the decayed mean of the item vectors of the training history.

    The newest ``last`` rows of TRAIN and HISTORY count. In a log with labels those of label 1 do,
    and where a cut is declared those before it alone, so that no row that is a label is pooled.
    Items without a text of their own are left out; a user without any other has mask False and
    holds the mean of the other users.
    """

    revision: ClassVar[int] = 2
    tells_users: ClassVar[bool] = True

    decay: str = "harmonic"
    last: int = 20

    def __post_init__(self) -> None:
        if self.decay not in DECAYS or self.last < 1:
            raise ValueError(
                f"HistoryPooling(decay={self.decay!r}, last={self.last}): expected a decay of "
                f"{', '.join(DECAYS)} and at least one item"
            )

    def make(self, given: Given) -> tuple[VectorTable, dict[str, Any]]:
        table = given.vectors
        if table.entity != "item":
            raise ValueError("HistoryPooling pools item vectors; it got user vectors")
        data = given.log
        vectors, known = table.aligned(data.items)
        if data.label is None:
            keep = (data.split == TRAIN) | (data.split == HISTORY)
        else:
            keep = behaviours(data)
        keep &= known[data.item]
        item = data.item[keep]
        start = np.searchsorted(data.user[keep], np.arange(data.n_users + 2))
        out = np.zeros((data.n_users, table.dim), np.float32)
        mask = np.zeros(data.n_users, bool)
        for user in range(1, data.n_users + 1):
            mine = item[start[user] : start[user + 1]][-self.last :]
            if len(mine):
                out[user - 1] = pool_history(vectors[mine], self.decay)
                mask[user - 1] = True
        if mask.any():
            out[~mask] = out[mask].mean(0, dtype=np.float64)
        info = {"users": int(mask.sum()), "without_items": int((~mask).sum())}
        return VectorTable("user", data.users.ids, out, mask), info
