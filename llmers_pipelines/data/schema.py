"""Column names, field kinds and the columns of catalog tables: written once, read everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

ITEM_ID = "item_id"
USER_ID = "user_id"
TITLE = "title"
RATING = "rating"
TIMESTAMP = "timestamp"  # seconds since 1970, UTC
POSITION = "position"  # stored order, where a data set has no clock
EVENT = "event"  # view, click, purchase, ...
ROW = "row"  # number of the record in its file, from 1, header not counted
TEXT = "text"

KINDS = {
    "text": "free text, read by prompts and encoders",
    "category": "one of a set of values; several when a separator is declared",
    "number": "a quantity; bucketed where a model needs categories",
    "image": "a path or address of a picture",
}


class DataError(ValueError):
    """A data set cannot be used as it is; the message names the place and the mend."""


@dataclass(frozen=True)
class Column:
    """One column of an asset: its name, Arrow type and meaning."""

    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = True


# Columns that every table of a kind has; a table may have more.
TABLES: dict[str, tuple[Column, ...]] = {
    "items": (
        Column(ITEM_ID, pa.string(), "id of the item, unique", nullable=False),
        Column(TITLE, pa.string(), "name shown to people"),
    ),
    "users": (Column(USER_ID, pa.string(), "id of the user, unique", nullable=False),),
    "interactions": (
        Column(USER_ID, pa.string(), "who", nullable=False),
        Column(ITEM_ID, pa.string(), "what", nullable=False),
        Column(ROW, pa.int64(), "record in the source file, from 1", nullable=False),
    ),
    "quarantine": (
        Column("table", pa.string(), "table of the data set", nullable=False),
        Column("file", pa.string(), "source file", nullable=False),
        Column(ROW, pa.int64(), "record in the file, from 1, header not counted", nullable=False),
        Column("column", pa.string(), "column of the file"),
        Column("value", pa.string(), "what was found, shortened"),
        Column("reason", pa.string(), "kind of fault", nullable=False),
        Column("mend", pa.string(), "what to do", nullable=False),
        Column("action", pa.string(), "dropped (row), cleared or mended (value)", nullable=False),
    ),
}


def arrow_schema(kind: str) -> pa.Schema:
    """Return the required columns of ``kind`` as an Arrow schema."""
    return pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in TABLES[kind]])


def column_meanings(kind: str) -> dict[str, str]:
    """Return name -> meaning for the required columns of ``kind``."""
    return {c.name: c.meaning for c in TABLES[kind]}


def require_columns(table: pa.Table, names: Iterable[str], owner: str) -> None:
    """Raise ``DataError`` naming the first of ``names`` that ``table`` lacks."""
    for name in names:
        if name not in table.column_names:
            raise DataError(
                f"{owner}: column {name!r} is missing; found {', '.join(table.column_names)}"
            )
