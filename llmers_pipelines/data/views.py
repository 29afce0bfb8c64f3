"""Other sights of one data set, for questions about a result and never for serving.

``opaque``: items without what a language model may know from elsewhere: titles become tokens
without meaning, free texts are empty, categories and numbers stay. ``share25``: a quarter of each
user's training rows, those of a smaller share among those of a larger one. ``noise10``: a tenth of
the training rows hold a random item, and the log says which.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from .schema import TITLE
from .training import TRAIN, TrainingData

OPAQUE = "opaque"
INJECTED = "injected"  # in the info of a log: [user position, place among the training rows]
_OF_LOG = re.compile(r"(share|noise)([1-9][0-9]?)")


def check_view(view: str) -> None:
    """Raise ValueError for a name that is no view."""
    if view and view != OPAQUE and not _OF_LOG.fullmatch(view):
        raise ValueError(
            f"view {view!r}: expected {OPAQUE!r}, or share or noise with a percentage from 1 to 99 "
            "(share25, noise10)"
        )


def sees(view: str, table: str) -> bool:
    """Say whether ``table`` (``items`` or ``splits``) is another one under ``view``."""
    return bool(view) and table == ("items" if view == OPAQUE else "splits")


def opaque_items(items: pa.Table, kinds: Mapping[str, str]) -> pa.Table:
    """Return ``items`` with a token for each title and nothing in fields of kind ``text``.

    ``kinds``: field -> kind. A token is a hash of the id: it stays when items are added.
    """
    ids = items["item_id"].to_pylist()
    out = items
    for place, name in enumerate(items.column_names):
        if name == TITLE:
            marks = [hashlib.sha256(i.encode()).hexdigest()[:10] for i in ids]
            out = out.set_column(place, name, pa.array([f"item {m}" for m in marks], pa.string()))
        elif kinds.get(name) in ("text", "image"):
            kind = items.schema.field(name).type
            out = out.set_column(place, name, pa.nulls(len(ids), kind))
    return out


def seen_log(data: TrainingData, view: str) -> TrainingData:
    """Return the log under ``view``: fewer training rows, or some with another item.

    Every held-out row stays as it is.
    """
    found = _OF_LOG.fullmatch(view)
    if found is None:
        raise ValueError(f"{view!r} is no view of a log")
    share = int(found[2]) / 100
    return _fewer(data, share) if found[1] == "share" else _noisy(data, share)


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
