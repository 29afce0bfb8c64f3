"""Checks of derived tables by their kind of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ...data.leakage import prompt_violations
from ...data.training import HISTORY, TRAIN, TrainingData
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
    """Ids in the first column, each once; users, items and scenarios are those of the log."""
    column = table.column_names[0]
    names = table[column].to_pylist()
    unknown = 0
    if log is not None and column == "scenario_id":
        there = set(log.scenario.vocabulary if log.scenario is not None else ())
        unknown = sum(name not in there for name in names)
    elif log is not None and column in ("user_id", "item_id"):
        known = log.users if column == "user_id" else log.items
        unknown = int((known.index(names) == 0).sum())
    twice = len(names) - len(set(names))
    details = {"rows": len(names), "twice": twice, "unknown": unknown,
               "without id": names.count(None)}  # fmt: skip
    passed = not twice and not unknown and None not in names
    return (CheckOutcome("row_identity", passed, True, details),)


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


def edge_checks(table: pa.Table, log: TrainingData | None) -> tuple[CheckOutcome, ...]:
    """Each (user, item, label) once, of known ids, and every pair a training row."""
    assert log is not None, "edges are made from a log"
    users, items = table["user_id"].to_pylist(), table["item_id"].to_pylist()
    labels = [table[c].to_pylist() for c in table.column_names if c not in ("user_id", "item_id")]
    twice = len(users) - len(set(zip(users, items, *labels, strict=True)))
    known = bool((log.users.index(users) > 0).all() and (log.items.index(items) > 0).all())
    wrong = prompt_violations(log, users, items)
    why = {"why": "; ".join(map(str, wrong[:3]))} if wrong else {}
    return (
        CheckOutcome("row_identity", known and not twice, True,
                     {"edges": len(users), "twice": twice, "known ids": known}),
        CheckOutcome("no_leakage", not wrong, True,
                     {"edges": len(users), "no training row": len(wrong), **why}),
    )  # fmt: skip


def graph_checks(table: pa.Table, log: TrainingData | None) -> tuple[CheckOutcome, ...]:
    """Users' graphs: one per round and kind, and the original ones made of rows before the cut."""
    from ...derive.reasoning_graphs import ORIGINAL

    assert log is not None, "graphs are made from a log"
    rows = table.to_pylist()
    twice = len(rows) - len({(r["user_id"], r["round"], r["kind"]) for r in rows})
    loose = sum(max([*r["sources"], *r["targets"], -1]) >= len(r["nodes"]) for r in rows)
    keep = np.isin(log.split, (TRAIN, HISTORY))
    user, item = log.user[keep], log.item[keep]
    start = np.searchsorted(user, np.arange(log.n_users + 2))
    late, told = 0, 0
    for row, u in zip(rows, log.users.index([r["user_id"] for r in rows]), strict=True):
        if row["kind"] != ORIGINAL:
            continue
        met = set(item[start[u] : start[u] + row["cut"]].tolist()) if u else set()
        own = [n.removeprefix("item:") for n in row["nodes"] if n.startswith("item:")]
        told += len(own)
        late += sum(int(i) not in met for i in log.items.index(own))
    return (
        CheckOutcome("row_identity", not twice and not loose, True,
                     {"graphs": len(rows), "twice": twice, "edges without a node": loose}),
        CheckOutcome("no_leakage", not late, True,
                     {"items": told, "no training row before the cut": late}),
    )  # fmt: skip


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
    "edges": edge_checks, "graphs": graph_checks,
    "pairs": pair_checks, "samples": pair_checks, "interactions": added_checks,
}  # fmt: skip
