"""Which rows of an artifact are about one entity. Ids of items and users may be the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...data.training import SPLIT_NAMES, TrainingData
from ...data.vectors import VectorTable
from ...store.manifests import Manifest
from .form import CatalogRow, Content, LogRow, Named, TableRows

HISTORY = 20  # newest training rows shown of a user
ROWS = 50  # rows shown of a table that has several per entity


def entities_of(artifact: Any) -> tuple[str, ...]:
    """Return the kinds of entities whose rows an artifact holds, the one that keys it first."""
    if isinstance(artifact, TrainingData):
        return ("user", "item")
    if isinstance(artifact, VectorTable):
        return (artifact.entity,)
    if isinstance(artifact, pa.Table):
        names = artifact.column_names
        own = ("item_id", "user_id", "row_id", "pair_id")
        found = tuple(c.removesuffix("_id") for c in names if c in own)
        # A review, a step, a sample: rows of a table that another step made, with answers to them.
        made = names[0].removesuffix("_id") if "prompt_revision" in names else ""
        return found or ((made,) if f"{made}_id" == names[0] else ())
    return ()


def holds(artifact: Any, entity: str, row_id: str) -> bool:
    """Say whether ``artifact`` has a row of this entity."""
    if entity not in entities_of(artifact):
        return False
    if isinstance(artifact, TrainingData):
        return bool(log_ids(artifact, entity).index([row_id])[0])
    if isinstance(artifact, VectorTable):
        return row_id in artifact.ids
    return bool(pc.any(pc.equal(artifact[f"{entity}_id"], row_id)).as_py())


def log_ids(data: TrainingData, entity: str) -> Any:
    return data.users if entity == "user" else data.items


def rows_of(table: pa.Table, entity: str, row_id: str) -> pa.Table:
    return table.filter(pc.equal(table[f"{entity}_id"], row_id))


def table_content(
    manifest: Manifest, table: pa.Table, entity: str, row_id: str
) -> Content | None:
    """Return the rows of a plain table, newest first where they are dated; None without any."""
    rows = rows_of(table, entity, row_id)
    if not rows.num_rows:
        return None
    if manifest.name in ("catalog/items", "catalog/users"):
        row = rows.slice(0, 1).to_pylist()[0]
        return CatalogRow({k: v for k, v in row.items() if v is not None})
    names = rows.column_names
    note = ""
    if {"position", "rank"} <= {*names} and entity == "user":  # the newest position speaks
        positions, newest = len(rows["position"].unique()), pc.max(rows["position"])
        note = f"{positions} positions, the newest is {newest.as_py()}"
        within = "rank" if "rank" in names else "layer"
        rows = rows.filter(pc.equal(rows["position"], newest)).sort_by(within)
    elif "rank" in names and names[0] != f"{entity}_id":
        note = f"in {rows.num_rows} lists, mean rank {pc.mean(rows['rank']).as_py():.2f}"
    elif "timestamp" in names:
        rows = rows.sort_by([("timestamp", "descending")])
    return TableRows(tuple(rows.slice(0, ROWS).to_pylist()), rows.num_rows, note)


def log_content(
    data: TrainingData, entity: str, row_id: str, titles: Mapping[str, str]
) -> LogRow | None:
    """Return what the splits hold of a user or an item."""
    position = int(log_ids(data, entity).index([row_id])[0])
    if not position:
        return None
    if entity == "user":
        here = slice(int(data.user_start[position]), int(data.user_start[position + 1]))
    else:
        here = np.flatnonzero(data.item == position)
    split = data.split[here]
    counts = {name: int((split == s).sum()) for s, name in enumerate(SPLIT_NAMES)}
    counts = {name: n for name, n in counts.items() if n or name != "history"}
    if entity == "item":
        return LogRow(entity, counts)
    known = data.item[here][np.isin(split, (0, 3))]
    ids = [data.items.ids[i - 1] for i in known[-HISTORY:]]
    return LogRow(entity, counts, tuple(Named(i, titles.get(i)) for i in ids))


def named_items(value: Any, titles: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Yield (id, title) of every item id that stands somewhere in ``value``."""
    if isinstance(value, str):
        if value in titles:
            yield value, titles[value]
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if _may_name_items(str(name)):
                yield from named_items(inner, titles)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from named_items(inner, titles)


def _may_name_items(column: str) -> bool:
    return column in ("item_id", "other_id", "liked", "disliked", "items", "rows")
