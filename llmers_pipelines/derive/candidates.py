"""Candidates: what a trained recommender offers each user beyond what the user has met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ..data.leakage import prompt_violations
from ..data.training import HISTORY, TRAIN, TrainingData
from .derivation import DerivedTable, Given

BLOCK = 512  # users scored at a time


@dataclass(frozen=True)
class PastModel:
    """A trained recommender with the log that it was trained on, whose positions it speaks.

    ``scores(users, histories)`` returns float32 (B, N + 1), as a served model does;
    ``item_vectors()`` float (N + 1, D), of a model that has them, and ``states(users, histories)``
    float (B, D) what it scores them with. ``beside(name)`` is a table that was written beside the
    weights, None where there is no such table.
    """

    log: TrainingData
    scores: Callable[[np.ndarray, list[np.ndarray]], np.ndarray]
    item_vectors: Callable[[], np.ndarray] | None = None
    states: Callable[[np.ndarray, list[np.ndarray]], np.ndarray] | None = None
    beside: Callable[[str], pa.Table | None] | None = None


@dataclass(frozen=True)
class TopCandidates(DerivedTable):
    """The ``n`` best unseen items of each user by a trained model (LLMRec, arXiv:2311.00423).

    Sources: the model (through a ``Pin``, so that tuning it asks no model anew) and the splits.
    Publishes ``user_id``, ``rank`` from 1, ``item_id``; equal scores go to the earlier item of the
    log. Users are scored from their training rows (where a log has rows of a history cut, from
    those) and training rows are never offered. Validation and test rows are not read: an item that
    a user meets only there is offered like any other. A user without such rows gets no candidates.
    """

    rows: ClassVar[str] = "candidates"

    n: int = 10

    def __post_init__(self) -> None:
        if self.n < 2:
            raise ValueError(f"TopCandidates(n={self.n}): a choice needs at least 2 candidates")

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        model = next((s for s in given.sources if isinstance(s, PastModel)), None)
        if model is None:
            raise ValueError(
                "TopCandidates needs a trained model: Derive(TopCandidates(), Pin(Train(...)), "
                "splits(...))"
            )
        data = given.log
        known = HISTORY if (data.split == HISTORY).any() else TRAIN
        shown = data.split == known
        met = shown | (data.split == TRAIN)
        item = model.log.items.index(data.items.ids)  # position in the model's catalog, 0 = new
        item = np.concatenate([[0], item])
        user = np.concatenate([[0], model.log.users.index(data.users.ids)])
        start = data.user_start
        asked = np.flatnonzero(np.bincount(data.user[shown], minlength=data.n_users + 1))
        found: list[tuple[int, np.ndarray]] = []
        for at in range(0, len(asked), BLOCK):
            block = asked[at : at + BLOCK]
            rows = [slice(start[u], start[u + 1]) for u in block]
            histories = [item[data.item[r][shown[r]]] for r in rows]
            scores = model.scores(user[block], [h[h > 0] for h in histories])[:, item]
            scores[:, item == 0] = -np.inf
            for own, u, r in zip(scores, block, rows, strict=True):
                own[data.item[r][met[r]]] = -np.inf
                found.append((int(u), best(own, self.n)))
        table = pa.table({
            "user_id": pa.array([data.users.ids[u - 1] for u, top in found for _ in top],
                                pa.string()),
            "rank": pa.array([k for _, top in found for k in range(1, len(top) + 1)], pa.int32()),
            "item_id": pa.array([data.items.ids[i - 1] for _, top in found for i in top],
                                pa.string()),
        })  # fmt: skip
        info = {
            "users": len(found), "without_history": data.n_users - len(found),
            "new_items": int((item[1:] == 0).sum()),
            "held_out_seen": held_out_seen(model.log, data),
        }  # fmt: skip
        return table, info


def best(scores: np.ndarray, n: int) -> np.ndarray:
    """Return positions of the ``n`` largest finite scores, best first, ties by position."""
    wide = min(n, len(scores))
    least = np.partition(scores, -wide)[-wide]  # all that reach the last place, ties included
    top = np.flatnonzero((scores >= least) & np.isfinite(scores))
    return top[np.lexsort((top, -scores[top]))][:n]


def held_out_seen(past: TrainingData, now: TrainingData) -> int:
    """Return how many training rows of ``past`` are validation or test rows of ``now`` alone."""
    rows = past.split == TRAIN
    users = [past.users.ids[u - 1] for u in past.user[rows]]
    items = [past.items.ids[i - 1] for i in past.item[rows]]
    return sum(v.found in ("valid", "test") for v in prompt_violations(now, users, items))
