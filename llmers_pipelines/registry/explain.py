"""Why an item is recommended: the nearest items of the history and the attributes they share."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .bundle import Bundle

NEAREST = 3
NEWEST = 200  # history items that an explanation looks at
VALUES = 3  # shared values per attribute
COMMON = 0.5  # a value of more than this share of the catalog explains nothing


@dataclass(frozen=True)
class Explainer:
    """Explanations from the bundle alone; ``vectors`` float32[N + 1, D] is the served item table.

    Likeness is the cosine of item vectors or, where a model has none, of the items' users:
    ``|U_i & U_j| / sqrt(|U_i| |U_j|)``.
    """

    bundle: Bundle
    vectors: np.ndarray | None

    def why(self, item: int, history: np.ndarray) -> dict[str, Any]:
        """Return ``{"by", "nearest": [...], "shared": {attribute: {value: items}}, "history"}``.

        ``shared`` counts in how many of the ``history`` items a value of this item occurs; values
        that most of the catalog has are left out.
        """
        past = np.unique(history[-NEWEST:])
        past = past[past != item]
        likeness = self.likeness(item, past)
        best = np.argsort(-likeness, kind="stable")[:NEAREST]
        return {
            "by": "item vectors" if self.vectors is not None else "co-occurrence",
            "nearest": [
                {
                    "item_id": self.bundle.items.id(int(past[j])),
                    "title": self.bundle.title(int(past[j])),
                    "similarity": round(float(likeness[j]), 4),
                }
                for j in best if likeness[j] > 0
            ],
            "shared": self._shared(item, past),
            "history": len(past),
        }  # fmt: skip

    def likeness(self, item: int, others: np.ndarray) -> np.ndarray:
        """Return float[len(others)], the cosine of ``item`` to each of ``others``."""
        if self.vectors is None:
            return self._together(item, others)
        v, table = self.vectors[item], self.vectors[others]
        norm = np.linalg.norm(table, axis=1) * np.linalg.norm(v)
        return (table @ v) / np.maximum(norm, 1e-12)

    def likeness_to_all(self, history: np.ndarray) -> np.ndarray:
        """Return float[N], the mean likeness of every item to the items of ``history``."""
        past = np.unique(history[-NEWEST:])
        if self.vectors is None:
            everything = np.arange(1, self.bundle.n_items + 1)
            return np.mean([self._together(int(j), everything) for j in past], axis=0)
        norm = np.maximum(np.linalg.norm(self.vectors, axis=1, keepdims=True), 1e-12)
        unit = self.vectors / norm
        return unit[1:] @ unit[past].mean(0)

    def _together(self, item: int, others: np.ndarray) -> np.ndarray:
        start, users = self._users_of
        mine = np.zeros(len(self.bundle.users) + 1, bool)
        mine[users[start[item] : start[item + 1]]] = True
        if len(others) <= NEWEST:
            both = np.array([mine[users[start[j] : start[j + 1]]].sum() for j in others], float)
        else:
            running = np.concatenate([[0], np.cumsum(mine[users])])
            both = running[start[others + 1]] - running[start[others]]
        count = np.diff(start)
        return both / np.maximum(np.sqrt(count[item] * count[others]), 1)

    @cached_property
    def _users_of(self) -> tuple[np.ndarray, np.ndarray]:
        """Users of each item, each once: those of item i are ``users[start[i]:start[i + 1]]``."""
        n_users, n_items = len(self.bundle.users), self.bundle.n_items
        user = np.repeat(np.arange(n_users + 1), np.diff(self.bundle.offsets))
        pair = np.unique(self.bundle.seen.astype(np.int64) * (n_users + 1) + user)
        start = np.searchsorted(pair // (n_users + 1), np.arange(n_items + 2))
        return start, pair % (n_users + 1)

    @cached_property
    def _common(self) -> dict[str, set[str]]:
        import pyarrow.compute as pc

        most = COMMON * self.bundle.n_items
        out = {}
        for name in self.bundle.config["attributes"]:
            counts = pc.value_counts(pc.list_flatten(self.bundle.catalog[name]))
            out[name] = {c["values"] for c in counts.to_pylist() if c["counts"] > most}
        return out

    def _shared(self, item: int, past: np.ndarray) -> dict[str, dict[str, int]]:
        out = {}
        for name, values in self.bundle.attributes(item).items():
            column = self.bundle.catalog[name]
            mine = set(values) - self._common[name]
            count = Counter(
                v for j in past if mine for v in set(column[int(j) - 1].as_py() or ()) & mine
            )
            if count:
                ranked = sorted(count.items(), key=lambda pair: (-pair[1], pair[0]))
                out[name] = dict(ranked[:VALUES])
        return out
