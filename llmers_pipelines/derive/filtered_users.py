"""Users who may like a cold item: two pairs of towers and a nearest-user search (ColdLLM)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..data.training import TRAIN, TrainingData
from ..data.vectors import VectorTable
from .derivation import DerivedTable, Given
from .neighbours import nearest_of


@dataclass(frozen=True)
class FilteredUsers(DerivedTable):
    """``row_id, item_id, rank, user_id, score``: the ``k`` users of each item without training row.

    A user is ``[text tower; student of the known vector]``, an item ``[text tower; student of its
    text]``, scored by dot product; see ``filter_towers_net`` for the losses. Known vectors are
    brought to unit mean length, text vectors are centred and scaled by one number per table.
    Sources: text vectors of users and items, then known vectors of users and items, and the splits.
    Training rows alone are read. Items and users without a text of their own take no part.
    ``typical``: training rows at which an item's weight ``tanh(rows / typical)`` is .76; 0 = the
    mean of warm items. Epochs are fixed, so that no held-out row chooses them.
    """

    rows: ClassVar[str] = "pairs"

    k: int = 20
    dim: int = 200
    hidden: int = 512
    lr: float = 1e-3
    batch: int = 1024
    epochs: int = 30
    a: float = 1.0
    b: float = 1.0
    c: float = 1.0
    squared: bool = False
    typical: float = 0.0
    least_weight: float = 0.1
    exact_below: int = 50_000
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.k, self.dim, self.hidden, self.batch, self.epochs) < 1 or self.lr <= 0:
            raise ValueError(
                f"FilteredUsers(k={self.k}, dim={self.dim}, hidden={self.hidden}, batch="
                f"{self.batch}, epochs={self.epochs}, lr={self.lr}): at least 1 each, lr above 0"
            )
        if min(self.a, self.b, self.c, self.typical, self.least_weight) < 0:
            raise ValueError("FilteredUsers: a, b, c, typical and least_weight are at least 0")

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        from .filter_towers_net import fit_towers

        data = given.log
        tables = [s for s in given.sources if isinstance(s, VectorTable)]
        sides = {e: [t for t in tables if t.entity == e] for e in ("user", "item")}
        if any(len(found) != 2 for found in sides.values()):
            raise ValueError(
                "FilteredUsers needs text vectors and known vectors of users and of items: "
                "Derive(FilteredUsers(), user_texts, item_texts, known_users, known_items, log)"
            )
        (user_text, user_known), (item_text, item_known) = sides["user"], sides["item"]
        users, told_users = _centred(*user_text.aligned(data.users))
        items, told_items = _centred(*item_text.aligned(data.items))
        e_users, known_users = _unit(*user_known.aligned(data.users))
        e_items, known_items = _unit(*item_known.aligned(data.items))
        counts = data.train_counts
        able, warm = told_users & known_users, told_items & known_items & (counts > 0)
        cold = np.flatnonzero(told_items & (counts == 0))
        cold = cold[cold > 0]
        train = data.split == TRAIN
        pairs = np.unique(np.stack([data.user[train], data.item[train]], 1), axis=0)
        pairs = pairs[able[pairs[:, 0]] & warm[pairs[:, 1]]]
        untold = int((counts[1:] == 0).sum()) - len(cold)
        if not len(pairs) or not len(cold):
            none = np.zeros(0, np.int64)
            return _table(data, none, none, np.zeros(0)), {
                "cold_items": len(cold), "pairs": len(pairs), "without_text": untold,
            }  # fmt: skip
        own, theirs, facts = fit_towers(
            self, pairs, (users, items), (e_users, e_items), np.flatnonzero(warm), counts
        )
        place = np.flatnonzero(able)
        near, score, search = nearest_of(theirs[cold], own[place], self.k, self.exact_below)
        real = near >= 0
        row = np.nonzero(real)[0]
        table = _table(data, cold[row], place[near[real]], score[real])
        return table, {"cold_items": len(cold), "pairs": len(pairs), "without_text": untold,
                       **facts, **search}  # fmt: skip


def _table(data: TrainingData, item: np.ndarray, user: np.ndarray, score: np.ndarray) -> pa.Table:
    """Return the rows of positions int64[R]; rows of one item follow one another, best first."""
    items = pa.array(data.items.ids, pa.string()).take(pa.array(item - 1))
    users = pa.array(data.users.ids, pa.string()).take(pa.array(user - 1))
    place = np.arange(len(item))
    first = np.concatenate([[True], item[1:] != item[:-1]]) if len(item) else np.zeros(0, bool)
    rank = pa.array(place - np.maximum.accumulate(np.where(first, place, 0)) + 1, pa.int32())
    join: Any = pc.call_function
    named = join("binary_join_element_wise", [items, rank.cast(pa.string()), pa.scalar("@")])
    return pa.table({"row_id": named, "item_id": items, "rank": rank, "user_id": users,
                     "score": pa.array(score, pa.float64())})  # fmt: skip


def _centred(vectors: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors with mean zero and unit mean square over rows of ``mask``; others zero."""
    out = np.zeros_like(vectors, np.float32)
    if mask.any():
        real = vectors[mask].astype(np.float64)
        real -= real.mean(0)
        out[mask] = real / max(float(np.sqrt(np.square(real).mean())), 1e-12)
    return out, mask


def _unit(vectors: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors with mean length one over rows of ``mask``; others zero."""
    out = np.zeros_like(vectors, np.float32)
    if mask.any():
        real = vectors[mask].astype(np.float64)
        out[mask] = real / max(float(np.linalg.norm(real, axis=1).mean()), 1e-12)
    return out, mask
