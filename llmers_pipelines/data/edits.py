"""Edits of a log's training rows, and edits that mean nothing for comparison."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa

from .training import TRAIN, TrainingData

COLUMNS = ("user_id", "position", "old_id", "new_id")


def is_edits(table: object) -> bool:
    """Say whether ``table`` holds edits of sequences."""
    return isinstance(table, pa.Table) and set(COLUMNS) <= set(table.column_names)


def with_edits(data: TrainingData, edits: pa.Table, name: str) -> TrainingData:
    """Return ``data`` in which each edited training row holds its new item.

    Raises ValueError, with user and position, where the old item does not stand there (the edits
    were made of another log) or the new one is not known.
    """
    rows, start = _training_rows(data)
    user = data.users.index(edits["user_id"].to_pylist())
    old, new = (data.items.index(edits[c].to_pylist()) for c in ("old_id", "new_id"))
    position = edits["position"].to_numpy()
    inside = (user > 0) & (position >= 0) & (position < start[user + 1] - start[user])
    at = np.where(inside, start[user] + position, 0)
    good = inside & (new > 0) & (old > 0) & (data.item[rows[at]] == old)
    if not good.all():
        n = int(np.flatnonzero(~good)[0])
        why = "is no item of the log" if not new[n] else "does not follow from this log"
        raise ValueError(
            f"{name}: row {n}, user {edits['user_id'][n]}, position {position[n]}: the edit "
            f"{edits['old_id'][n]} to {edits['new_id'][n]} {why}; make the edits of it anew"
        )
    item = data.item.copy()
    item[rows[at]] = new
    return dataclasses.replace(data, item=item)


def random_edits(
    data: TrainingData, edits: pa.Table, rng: np.random.Generator, *, suggested: bool
) -> pa.Table:
    """Return as many edits of each user at random positions.

    With ``suggested`` the new items are those of the real edits, dealt anew; else random ones.
    """
    rows, start = _training_rows(data)
    users = edits["user_id"].to_pylist()
    position, old = np.zeros(len(users), np.int64), [""] * len(users)
    groups: dict[str, list[int]] = {}
    for n, user in enumerate(users):
        groups.setdefault(user, []).append(n)
    for user, mine in groups.items():
        u = int(data.users.index([user])[0])
        drawn = rng.choice(start[u + 1] - start[u], len(mine), replace=False)
        for n, place in zip(mine, drawn, strict=True):
            position[n] = place
            old[n] = data.items.ids[data.item[rows[start[u] + place]] - 1]
    ids = data.items.ids
    new = edits["new_id"].to_pylist()
    dealt = [new[i] for i in rng.permutation(len(new))] if suggested else [
        ids[i] for i in rng.integers(len(ids), size=len(new))
    ]  # fmt: skip
    columns = {"position": pa.array(position), "old_id": pa.array(old, pa.string()),
               "new_id": pa.array(dealt, pa.string())}  # fmt: skip
    for name, values in columns.items():
        edits = edits.set_column(edits.column_names.index(name), name, values)
    return edits


def _training_rows(data: TrainingData) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the training split, by user and time, and each user's offset in them."""
    rows = np.flatnonzero(data.split == TRAIN)
    return rows, np.searchsorted(data.user[rows], np.arange(data.n_users + 2))
