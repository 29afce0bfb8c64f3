"""Rows of an asset by page, found by id or title."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..data.training import TrainingData
from ..data.vectors import VectorTable
from ..orchestrate.trace.entities import entities_of, log_ids

PAGE = 50
_CELL = 300  # characters of a cell; the row's own page has all of it
_NOT_LISTED = ("raw", "request_key", "prompt_revision", "model", "summary")

_MEASURED = ("metric", "slice", "users", "targets", "base", "enhanced", "difference", "low",
             "high")  # fmt: skip


@dataclass(frozen=True)
class Listing:
    """One page of rows. ``id_column`` of ``columns`` leads to a row's page; None where none does"""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    ids: tuple[str, ...]
    entity: str
    entities: tuple[str, ...]
    total: int
    page: int

    @property
    def pages(self) -> int:
        return max(1, -(-self.total // PAGE))


def browse(
    artifact: Any, titles: Mapping[str, str], query: str = "", page: int = 1, entity: str = ""
) -> Listing | None:
    """Return page ``page`` (from 1) of the rows whose id or title holds ``query``, in any case.

    None where the asset has no rows (weights, a registered model).
    """
    kinds = entities_of(artifact)
    entity = entity if entity in kinds else (kinds[0] if kinds else "")
    table = _as_table(artifact, entity)
    if table is None:
        return None
    id_column = f"{entity}_id" if entity else ""
    if query and id_column:
        table = table.filter(_matches(table, id_column, entity, titles, query))
    total = table.num_rows
    page = min(max(1, page), max(1, -(-total // PAGE)))
    rows = table.slice((page - 1) * PAGE, PAGE)
    names = [n for n in rows.column_names if n not in _NOT_LISTED]
    if set(_MEASURED) <= set(names):  # an evaluation: its controls stand in the report
        names = list(_MEASURED)
    named = "item_id" in names and "title" not in names
    cells = [tuple(_cell(row[n]) for n in names) for row in rows.to_pylist()]
    if named:
        at = names.index("item_id") + 1
        ids = rows["item_id"].to_pylist()
        cells = [(*c[:at], titles.get(i, ""), *c[at:]) for c, i in zip(cells, ids, strict=True)]
        names.insert(at, "title")
    own = tuple(map(str, rows[id_column].to_pylist())) if id_column else ()
    return Listing(tuple(names), tuple(cells), own, entity, kinds, total, page)


def _as_table(artifact: Any, entity: str) -> pa.Table | None:
    if isinstance(artifact, pa.Table):
        return artifact
    if isinstance(artifact, VectorTable):
        return pa.table({f"{artifact.entity}_id": pa.array(artifact.ids, pa.string()),
                         "known": pa.array(np.asarray(artifact.mask))})  # fmt: skip
    if isinstance(artifact, TrainingData):
        ids = log_ids(artifact, entity)
        column = artifact.user if entity == "user" else artifact.item
        counts = np.bincount(column, minlength=len(ids) + 1)[1:]
        return pa.table({f"{entity}_id": pa.array(ids.ids, pa.string()), "rows": counts})
    return None


def _matches(
    table: pa.Table, id_column: str, entity: str, titles: Mapping[str, str], query: str
) -> Any:
    ids = table[id_column].cast(pa.string())
    found = pc.match_substring(ids, query, ignore_case=True)
    if "title" in table.column_names:
        title = pc.match_substring(table["title"].cast(pa.string()), query, ignore_case=True)
        return pc.or_kleene(found, title)
    if entity == "item":
        wanted = query.casefold()
        near = [i for i, title in titles.items() if wanted in title.casefold()]
        return pc.or_(found, pc.is_in(ids, value_set=pa.array(near, pa.string())))
    return found


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value))
    text = str(value)
    return text if len(text) <= _CELL else f"{text[:_CELL]} …"
