"""Other sights of one data set, for questions about a result and never for serving.

``opaque``: a catalog without what a language model may know from elsewhere: titles become tokens
without meaning, free texts and what nobody declared are empty, declared categories and numbers
stay. ``share25``: a quarter of each user's training rows, those of a smaller share among those of a
larger one. ``users25``: the training rows of a quarter of the users, nested alike.
``noise10``: a tenth of the training rows hold a random item, and the log says which.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Mapping

import numpy as np
import pyarrow as pa

from .rules import parse_rule
from .schema import EVENT, ITEM_ID, TEXT, TITLE, USER_ID
from .split_spec import SplitSpec
from .training import TRAIN, TrainingData
from .view_names import OF_LOG

_WORDS = (TEXT, "image")  # kinds
_STRUCTURE = (USER_ID, ITEM_ID, EVENT)  # of a log; times, ratings and positions are numbers
INJECTED = "injected"  # in the info of a log: [user position, place among the training rows]


def opaque_items(items: pa.Table, kinds: Mapping[str, str]) -> pa.Table:
    """Return ``items`` with a token for each title, their ids, and declared values without words.

    ``kinds``: every declared field -> kind, coded and extracted ones too. A column that nobody
    declared may hold a title in disguise (an address, the id of another catalog): it is emptied
    like texts and pictures. A token is a hash of the id: it stays when items are added.
    """
    ids = items["item_id"].to_pylist()
    out = items
    for place, name in enumerate(items.column_names):
        if name == TITLE:
            marks = [hashlib.sha256(i.encode()).hexdigest()[:10] for i in ids]
            out = out.set_column(place, name, pa.array([f"item {m}" for m in marks], pa.string()))
        elif name != ITEM_ID and kinds.get(name, TEXT) in _WORDS:
            out = _emptied(out, place)
    return out


def opaque_rows(table: pa.Table, kinds: Mapping[str, str], read: Collection[str]) -> pa.Table:
    """Return users or interactions without free texts.

    Emptied are declared texts and pictures, and undeclared columns other than numbers and moments.
    What a split reads (``read``, see ``split_columns``) stays.
    """
    out = table
    for place, column in enumerate(table.schema):
        kind = kinds.get(column.name, "" if _told(column.type) else TEXT)
        if kind in _WORDS and column.name not in _STRUCTURE and column.name not in read:
            out = _emptied(out, place)
    return out


def split_columns(splits: Collection[SplitSpec]) -> set[str]:
    """Return the columns of the interactions that ``splits`` read by name."""
    found = {c for s in splits for c in (s.column, s.scenario, s.impression)}
    rules = {r for s in splits for r in (s.label, s.positive)}
    return (found | {parse_rule(r).column for r in rules if r}) - {""}


def _told(kind: pa.DataType) -> bool:
    types = pa.types
    return (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
            or types.is_boolean(kind) or types.is_temporal(kind))  # fmt: skip


def _emptied(table: pa.Table, place: int) -> pa.Table:
    column = table.schema.field(place)
    return table.set_column(place, column.name, pa.nulls(table.num_rows, column.type))


def seen_log(data: TrainingData, view: str) -> TrainingData:
    """Return the log under ``view``: fewer training rows, or some with another item.

    Every held-out row stays as it is.
    """
    found = OF_LOG.fullmatch(view)
    if found is None:
        raise ValueError(f"{view!r} is no view of a log")
    made = {"share": _fewer, "users": _fewer_users, "noise": _noisy}[found[1]]
    return made(data, int(found[2]) / 100)


def kept_rows(data: TrainingData, keep: np.ndarray) -> TrainingData:
    """Return ``data`` with the rows of ``keep`` (bool[R]) alone; ids and fields stay."""

    def kept(rows: np.ndarray | None) -> np.ndarray | None:
        return None if rows is None else rows[keep]

    scenario = data.scenario
    if scenario is not None:
        scenario = dataclasses.replace(scenario, codes=scenario.codes[keep])
    return dataclasses.replace(
        data, user=data.user[keep], item=data.item[keep], time=data.time[keep],
        split=data.split[keep], rating=kept(data.rating), label=kept(data.label),
        impression=kept(data.impression), scenario=scenario,
    )  # fmt: skip


def _fewer(data: TrainingData, share: float) -> TrainingData:
    """Keep ``ceil(share n)`` of the n training rows of each user: the same draw for every share."""
    rows = np.flatnonzero(data.split == TRAIN)
    draw = np.random.default_rng(0).random(len(rows))
    user = data.user[rows]
    order = np.lexsort((draw, user))
    count = np.bincount(user, minlength=data.n_users + 1)
    start = np.cumsum(count) - count
    place = np.empty(len(rows), np.int64)
    place[order] = np.arange(len(rows)) - start[user[order]]
    keep = np.ones(len(data.user), bool)
    keep[rows] = place < np.ceil(np.round(share * count[user], 9))
    made = kept_rows(data, keep)
    return dataclasses.replace(made, info={**data.info, "training rows kept": int(keep[rows].sum()),
                                           "training rows in all": len(rows)})  # fmt: skip


def _fewer_users(data: TrainingData, share: float) -> TrainingData:
    """Keep the training rows of ``ceil(share n)`` of the n users who have some, by hash of the id.

    The rows of a user are kept or dropped together; nobody's held-out rows are dropped.
    """
    train = data.split == TRAIN
    users = np.unique(data.user[train])
    marks = [hashlib.sha256(data.users.ids[u - 1].encode()).digest() for u in users]
    order = sorted(range(len(users)), key=lambda n: marks[n])
    kept = users[order[: int(np.ceil(round(share * len(users), 9)))]]
    made = kept_rows(data, ~train | np.isin(data.user, kept))
    return dataclasses.replace(made, info={**data.info, "training users kept": len(kept),
                                           "training users in all": len(users)})  # fmt: skip


def _noisy(data: TrainingData, share: float) -> TrainingData:
    """Put an item that the user never met in the place of ``share`` of all training rows."""
    if data.label is not None or data.task == "rating":
        raise ValueError(f"noise is put into logs of interactions, not of task {data.task!r}")
    rng = np.random.default_rng(0)
    rows = np.flatnonzero(data.split == TRAIN)
    chosen = np.sort(rng.choice(rows, round(share * len(rows)), replace=False))
    width = data.n_items + 1
    met = np.unique(data.user * width + data.item)
    item = data.item.copy()
    wrong = np.arange(len(chosen))
    while len(wrong):  # a user who met every item would have no stranger: bounded below
        item[chosen[wrong]] = rng.integers(1, width, len(wrong))
        keys = data.user[chosen] * width + item[chosen]
        full = np.bincount(met // width, minlength=data.n_users + 1)[data.user[chosen]] >= width - 1
        wrong = np.flatnonzero(np.isin(keys, met) & ~full)
    first = np.searchsorted(data.user[rows], np.arange(data.n_users + 2))
    place = np.searchsorted(rows, chosen) - first[data.user[chosen]]
    told = np.stack([data.user[chosen], place], 1).tolist()
    return dataclasses.replace(data, item=item, info={**data.info, INJECTED: told})


def injected_places(data: TrainingData) -> set[tuple[int, int]]:
    """Return (user position, place among the user's training rows) of planted items."""
    told = data.info.get(INJECTED) or []
    return {(int(user), int(place)) for user, place in told}  # type: ignore[union-attr]
