"""Training rows that a method adds to a log, and rows that mean nothing for comparison."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa

from .training import TRAIN, Field, TrainingData

COLUMNS = ("user_id", "item_id", "source")


def is_added(table: object) -> bool:
    """Say whether ``table`` holds interactions to be added to a log."""
    return isinstance(table, pa.Table) and set(COLUMNS) <= set(table.column_names)


def with_added(data: TrainingData, rows: pa.Table, name: str) -> TrainingData:
    """Return ``data`` with a training row for each pair of ``rows``.

    An added row stands behind the user's other training rows and before the held-out ones, with the
    time of the newest of these; it has no rating, and the label 1 where rows have one. Raises
    ValueError, with user and item, for an id that is not known and for a pair that stands twice or
    is a training row.
    """
    user = data.users.index(rows["user_id"].to_pylist())
    item = data.items.index(rows["item_id"].to_pylist())
    width = data.n_items + 1
    pair, train = user * width + item, data.split == TRAIN
    first = np.zeros(len(pair), bool)
    first[np.unique(pair, return_index=True)[1]] = True
    known = np.isin(pair, data.user[train] * width + data.item[train])
    good = (user > 0) & (item > 0) & first & ~known
    if not good.all():
        n = int(np.flatnonzero(~good)[0])
        why = "is a training row already" if known[n] else "stands twice"
        why = why if user[n] and item[n] else "is not of this log"
        raise ValueError(
            f"{name}: row {n}, user {rows['user_id'][n]}, item {rows['item_id'][n]}: the pair "
            f"{why}; make the rows of it anew"
        )
    if not len(pair):
        return data
    last = np.zeros(data.n_users + 1, np.int64)
    np.maximum.at(last, data.user[train], data.time[train])
    owner = np.concatenate([data.user, user])
    held = np.concatenate([~train, np.zeros(len(user), bool)])
    order = np.lexsort((np.arange(len(owner)), held, owner))

    def merged(old: np.ndarray | None, new: object) -> np.ndarray | None:
        if old is None:
            return None
        return np.concatenate([old, np.broadcast_to(np.asarray(new, old.dtype), len(user))])[order]

    scenario = data.scenario
    if scenario is not None:
        scenario = Field(np.asarray(merged(scenario.codes, 0)), scenario.vocabulary)
    return dataclasses.replace(
        data, user=owner[order], item=merged(data.item, item), time=merged(data.time, last[user]),
        split=merged(data.split, TRAIN), rating=merged(data.rating, np.nan),
        label=merged(data.label, 1), scenario=scenario, impression=merged(data.impression, 0),
    )  # fmt: skip


def random_added(data: TrainingData, rows: pa.Table, rng: np.random.Generator) -> pa.Table:
    """Return as many rows of each item, of users drawn uniformly that have no training row of it.

    Users are those with a training row.
    """
    train = data.split == TRAIN
    users = np.unique(data.user[train])
    groups: dict[str, list[int]] = {}
    for n, item in enumerate(rows["item_id"].to_pylist()):
        groups.setdefault(item, []).append(n)
    drawn = np.zeros(rows.num_rows, np.int64)
    for position, mine in zip(data.items.index(list(groups)), groups.values(), strict=True):
        free = np.setdiff1d(users, data.user[train & (data.item == position)])
        drawn[mine] = rng.choice(free, len(mine), replace=False)
    names = pa.array([data.users.ids[u - 1] for u in drawn], pa.string())
    return rows.set_column(rows.column_names.index("user_id"), "user_id", names)


def dealt_added(data: TrainingData, rows: pa.Table, rng: np.random.Generator) -> pa.Table:
    """Return the rows with their users dealt anew; what then is a training row or twice is gone."""
    users = rows["user_id"].to_pylist()
    names = pa.array([users[n] for n in rng.permutation(len(users))], pa.string())
    dealt = rows.set_column(rows.column_names.index("user_id"), "user_id", names)
    width, train = data.n_items + 1, data.split == TRAIN
    pair = data.users.index(names.to_pylist()) * width + data.items.index(
        rows["item_id"].to_pylist()
    )
    first = np.unique(pair, return_index=True)[1]
    good = first[~np.isin(pair[first], data.user[train] * width + data.item[train])]
    return dealt.take(np.sort(good))
