"""Slices: parts of the evaluated rows, defined on training interactions alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..data.training import TEST, TRAIN, TrainingData

TAIL_SHARE = 0.8
ITEM_EDGES = (10, 30, 60, 100)  # LLM-ESR, figure of item groups
USER_EDGES = (5, 10, 15, 20)  # LLM-ESR, figure of user groups


@dataclass(frozen=True)
class Slice:
    """Rows whose item (the target's, never the history's) and user are members.

    ``items`` bool[N + 1], ``users`` bool[U + 1]; None stands for all. ``rule`` says in words, with
    the threshold, who is a member. A user with several targets counts in every item slice that
    holds one of them, with those alone as relevant and all candidates still ranked.
    """

    name: str
    rule: str
    items: np.ndarray | None = None
    users: np.ndarray | None = None
    log: np.ndarray | None = None  # bool[R]: rows of the log, for tables of its rows
    pairs: np.ndarray | None = None  # int64[P, 2]: (user, item) of the members

    def rows(self, table: pa.Table) -> np.ndarray:
        """Return bool[R] over the rows of a rank or prediction table."""
        keep = np.ones(table.num_rows, bool)
        for members, column in ((self.items, "item"), (self.users, "user"), (self.log, "row")):
            if members is not None:
                keep &= members[table[column].to_numpy()]
        if self.pairs is not None:
            user, item = table["user"].to_numpy(), table["item"].to_numpy()
            width = 1 + max(item.max(initial=0), self.pairs[:, 1].max(initial=0))
            keep &= np.isin(user * width + item, self.pairs[:, 0] * width + self.pairs[:, 1])
        return keep


ALL = Slice("all", "every row")


def standard_slices(data: TrainingData, *, buckets: bool = False) -> tuple[Slice, ...]:
    """Return all, head and tail items, head and tail users, cold items, cold users.

    Tail = the bottom 80 % of the catalog by training interactions, or of the users by training
    history length; equal counts are all tail, so a flat distribution has an empty head. Cold = no
    training interaction; cold items are a part of the tail. A log that is split by time adds the
    rows where item and user are both warm, and the first row of each user after the cutoff. A log
    with scenarios adds one slice per scenario. ``buckets`` adds two five-step curves.
    """
    items, users = data.train_counts, user_counts(data)
    return (
        ALL,
        *_head_tail("items", items, "training interactions"),
        *_head_tail("users", users, "training rows"),
        _members("cold_items", "items without a training interaction", items == 0, "items"),
        _members("cold_users", "users without a training row", users == 0, "users"),
        *_by_time(data, items > 0, users > 0),
        *_scenarios(data),
        *(curves(data) if buckets else ()),
    )


def curves(data: TrainingData) -> tuple[Slice, ...]:
    """Return five steps of items by training interactions and five of users by training rows."""
    return (
        *_curve("items", data.train_counts, ITEM_EDGES),
        *_curve("users", user_counts(data), USER_EDGES),
    )


def _by_time(data: TrainingData, items: np.ndarray, users: np.ndarray) -> tuple[Slice, ...]:
    if data.info.get("protocol") != "time":
        return ()
    rows = np.flatnonzero(data.split == TEST)
    rows = rows[np.append(True, np.diff(data.user[rows]) > 0)] if len(rows) else rows
    both = Slice("warm_warm", "items and users of training", items.copy(), users.copy())
    both.items[0] = both.users[0] = False
    first = np.stack([data.user[rows], data.item[rows]], 1)
    return both, Slice("first_rows", "each user's first row after the cutoff", pairs=first)


def _scenarios(data: TrainingData) -> tuple[Slice, ...]:
    if data.scenario is None:
        return ()
    codes, names = data.scenario.codes, data.scenario.vocabulary
    return tuple(
        Slice(f"scenario_{name}", f"rows of the scenario {name!r}", log=codes == code)
        for code, name in enumerate(names, start=1)
    )


def user_counts(data: TrainingData) -> np.ndarray:
    """Return training rows per user, int64[U + 1]."""
    return np.bincount(data.user[data.split == TRAIN], minlength=data.n_users + 1)


def tail_threshold(counts: np.ndarray, share: float = TAIL_SHARE) -> int:
    """Return the largest count of the bottom ``share`` of entities; equal counts are tail too."""
    if not len(counts):
        return 0
    last = max(int(np.ceil(share * len(counts) - 1e-9)) - 1, 0)
    return int(np.partition(counts, last)[last])


def describe(slices: Sequence[Slice], table: pa.Table) -> list[dict[str, object]]:
    """Return one row per slice: rule, members, evaluated users and targets, share of targets."""
    user = table["user"].to_numpy()
    out = []
    for s in slices:
        rows = s.rows(table)
        members = s.items if s.items is not None else s.users
        out.append({
            "slice": s.name,
            "rule": s.rule,
            "members": None if members is None else int(members[1:].sum()),
            "users": len(np.unique(user[rows])),
            "targets": int(rows.sum()),
            "share": float(rows.mean()) if len(rows) else None,
        })
    return out


def _head_tail(kind: str, counts: np.ndarray, unit: str) -> tuple[Slice, Slice]:
    at = tail_threshold(counts[1:])
    return (
        _members(f"head_{kind}", f"{kind} with more than {at} {unit}", counts > at, kind),
        _members(f"tail_{kind}", f"{kind} with at most {at} {unit}", counts <= at, kind),
    )


def _curve(kind: str, counts: np.ndarray, edges: Sequence[int]) -> tuple[Slice, ...]:
    lows, highs = (0, *edges), (*edges, None)
    out = []
    for low, high in zip(lows, highs, strict=True):
        inside = (counts >= low) & (True if high is None else counts < high)
        label = f"{low}_{high - 1}" if high else f"{low}_up"
        rule = f"{kind} with {label.replace('_up', ' and more').replace('_', ' to ')} training rows"
        out.append(_members(f"{kind}_{label}", rule, inside, kind))
    return tuple(out)


def _members(name: str, rule: str, members: np.ndarray, kind: str) -> Slice:
    members = members.copy()
    members[0] = False
    return Slice(name, rule, **{kind: members})
