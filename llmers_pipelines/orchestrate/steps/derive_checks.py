"""Checks of derived tables by their kind of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ...data.leakage import prompt_violations
from ...data.training import TRAIN, TrainingData
from ...store.manifests import CheckOutcome
from ..tuned import shown_pairs


def example_checks(table: pa.Table, log: TrainingData | None) -> tuple[CheckOutcome, ...]:
    """Each example once; what it shows of a user is a training (or history) row."""
    names = table["example_id"].to_pylist()
    twice = len(names) - len(set(names))
    users, items, untold = shown_pairs(table)
    violations = prompt_violations(log, users, items) if log is not None else []
    blind = bool(users) and log is None
    details: dict[str, Any] = {
        "interactions shown": len(users), "violations": len(violations), "untold": untold,
    }  # fmt: skip
    if violations or untold or blind:
        told = [str(v) for v in violations[:3]]
        told += [f"{untold} examples about users do not tell what they show"] if untold else []
        told += ["interactions are shown, but no log is among the sources"] if blind else []
        details["why"] = "; ".join(told)
    return (
        CheckOutcome("row_identity", not twice and None not in names, True,
                     {"examples": len(names), "twice": twice}),
        CheckOutcome("no_leakage", not (violations or untold or blind), True, details),
    )  # fmt: skip


def entity_checks(table: pa.Table, log: TrainingData | None) -> tuple[CheckOutcome, ...]:
    """Ids of the log, each once."""
    column = next(c for c in ("user_id", "item_id") if c in table.column_names)
    names = table[column].to_pylist()
    unknown = 0
    if log is not None:
        known = log.users if column == "user_id" else log.items
        unknown = int((known.index(names) == 0).sum())
    twice = len(names) - len(set(names))
    details = {"rows": len(names), "twice": twice, "unknown": unknown}
    return (CheckOutcome("row_identity", not twice and not unknown, True, details),)


def position_checks(table: pa.Table, log: TrainingData | None) -> tuple[CheckOutcome, ...]:
    """Each position (from 0, of a user's training rows) once, with the item that stands there."""
    assert log is not None, "positions are those of a log"
    user = log.users.index(table["user_id"].to_pylist())
    column = "old_id" if "old_id" in table.column_names else "item_id"
    item = log.items.index(table[column].to_pylist())
    position = np.asarray(table["position"], np.int64)
    rows = np.flatnonzero(log.split == TRAIN)
    start = np.searchsorted(log.user[rows], np.arange(log.n_users + 2))
    inside = (user > 0) & (position >= 0) & (position < start[user + 1] - start[user])
    at = np.where(inside, start[user] + position, 0)
    there = inside & (log.item[rows][at] == item) if len(rows) else inside
    twice = len(user) - len(np.unique(np.stack([user, position]), axis=1).T)
    wrong = int((~there).sum())
    details: dict[str, Any] = {"positions": len(user), "twice": twice, "wrong": wrong}
    if wrong:
        first = int(np.flatnonzero(~there)[0])
        details["why"] = (f"user {table['user_id'][first]}, position {position[first]}: "
                          f"{table[column][first]} does not stand there")  # fmt: skip
    return (CheckOutcome("row_identity", not wrong and not twice, True, details),)


def pair_checks(table: pa.Table, log: TrainingData | None) -> tuple[CheckOutcome, ...]:
    """Users and items of the log, each pair once."""
    assert log is not None, "pairs are those of a log"
    user = log.users.index(table["user_id"].to_pylist())
    item = log.items.index(table["item_id"].to_pylist())
    unknown = int(((user == 0) | (item == 0)).sum())
    twice = len(user) - len(np.unique(user * (log.n_items + 1) + item))
    details = {"pairs": len(user), "twice": twice, "unknown": unknown}
    return (CheckOutcome("row_identity", not unknown and not twice, True, details),)


def added_checks(table: pa.Table, log: TrainingData | None) -> tuple[CheckOutcome, ...]:
    """Pairs that are no training row yet."""
    (pairs,) = pair_checks(table, log)
    assert log is not None
    width, train = log.n_items + 1, log.split == TRAIN
    mine = log.users.index(table["user_id"].to_pylist()) * width
    mine = mine + log.items.index(table["item_id"].to_pylist())
    there = int(np.isin(mine, log.user[train] * width + log.item[train]).sum())
    details = {**pairs.details, "training rows": there}
    return (CheckOutcome("row_identity", pairs.passed and not there, True, details),)


CHECKS = {
    "examples": example_checks, "entities": entity_checks, "positions": position_checks,
    "pairs": pair_checks, "samples": pair_checks, "interactions": added_checks,
}  # fmt: skip
