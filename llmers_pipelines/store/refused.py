"""Rows that no column can hold: each is set aside alone, and the rest of a flush is stored."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from .rows import SCHEMA

FILE = "refused.jsonl"  # in the store's folder: one JSON object per row, with the reason
_log = logging.getLogger(__name__)
# What Arrow raises for a value that its type cannot hold, depending on value and type.
_UNFIT = (pa.ArrowException, TypeError, ValueError, OverflowError)


@dataclass(frozen=True)
class Refused:
    """A row that cannot be stored, and which value of it is at fault."""

    row: tuple[Any, ...]
    column: str
    reason: str


def table_of(rows: Sequence[tuple[Any, ...]]) -> tuple[pa.Table, list[Refused]]:
    """Return the rows (values in the order of SCHEMA) as a table, without those that cannot be."""
    try:
        return _table(rows), []
    except _UNFIT:
        pass
    good, refused = [], []
    for row in rows:
        found = _unfit(row)
        if found is None:
            good.append(row)
        else:
            refused.append(Refused(row, *found))
    return _table(good), refused


def keep_refused(folder: Path, refused: Sequence[Refused]) -> Path:
    """Append ``refused`` to a file of their own, so that nothing that was paid for is gone."""
    path = folder / FILE
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for one in refused:
            row = dict(zip(SCHEMA.names, one.row, strict=True))
            told = {"column": one.column, "reason": one.reason, "row": row}
            file.write(json.dumps(told, default=str) + "\n")
            _log.error("answer %s cannot be stored (%s: %s); it is kept in %s and asked again",
                       row["key"], one.column, one.reason, path)  # fmt: skip
    return path


def _table(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    if not rows:
        return SCHEMA.empty_table()
    columns = zip(*rows, strict=True)
    arrays = [pa.array(values, f.type) for values, f in zip(columns, SCHEMA, strict=True)]
    return pa.table(arrays, schema=SCHEMA)


def _unfit(row: tuple[Any, ...]) -> tuple[str, str] | None:
    for value, field in zip(row, SCHEMA, strict=True):
        try:
            pa.array([value], field.type)
        except _UNFIT as error:
            return field.name, f"{type(error).__name__}: {str(error)[:200]}"
    return None
