"""Users and items as states of tuned upper layers over stored behaviours (BAHE)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ..data.vectors import VectorTable
from .click_sequences import behaviours
from .derivation import Derivation, Given


@dataclass(frozen=True)
class DeepLayers:
    """Upper layers of a tuned model.

    ``states(sequences)`` returns float32 (n, E) of sequences of behaviours, each float (L, E).
    """

    states: Callable[[Sequence[np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class DeepStates(Derivation):
    """One vector per user, of the newest ``last`` behaviours, or per item, of the item alone.

    Sources: the tuned model, the behaviours' vectors, the splits. Behaviours of a user are those of
    ``ClickSequences``. Items without a vector of their own are left out; who has none has mask
    False and the mean of the others.
    """

    tells_users: ClassVar[bool] = True

    side: Literal["user", "item"] = "user"
    last: int = 50

    def __post_init__(self) -> None:
        if self.side not in ("user", "item") or self.last < 1:
            raise ValueError(
                f"DeepStates(side={self.side!r}, last={self.last}): side is 'user' or 'item', at "
                "least 1 behaviour"
            )

    def make(self, given: Given) -> tuple[VectorTable, dict[str, Any]]:
        layers = next((s for s in given.sources if isinstance(s, DeepLayers)), None)
        if layers is None:
            raise ValueError(
                "DeepStates needs a tuned model: Derive(DeepStates(), Tune(DeepClicks(), ...), "
                "vectors, splits(...))"
            )
        data = given.log
        vectors, known = given.vectors.aligned(data.items)
        if self.side == "item":
            ids = data.items.ids
            lists = [np.array([i]) if known[i] else np.zeros(0, int) for i in range(1, len(known))]
        else:
            ids = data.users.ids
            keep = behaviours(data) & known[data.item]
            item = data.item[keep]
            start = np.searchsorted(data.user[keep], np.arange(data.n_users + 2))
            lists = [item[start[u] : start[u + 1]][-self.last :]
                     for u in range(1, data.n_users + 1)]  # fmt: skip
        mask = np.array([len(own) > 0 for own in lists], bool)
        width = vectors.shape[1]
        out = np.zeros((len(ids), width), np.float32)
        if mask.any():
            out[mask] = layers.states([vectors[own] for own in lists if len(own)])
            out[~mask] = out[mask].mean(0, dtype=np.float64)
        return VectorTable(self.side, ids, out, mask), {
            f"{self.side}s": int(mask.sum()), "without": int((~mask).sum()),
        }  # fmt: skip
