"""Column names, field kinds and row schemas: written once, read everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

ITEM_ID = "item_id"
USER_ID = "user_id"
TITLE = "title"
RATING = "rating"
LABEL = "label"
TIMESTAMP = "timestamp"  # seconds since 1970, UTC
POSITION = "position"  # stored order, where a data set has no clock
EVENT = "event"  # view, click, purchase, ...
SPLIT = "split"
ROW = "row"  # number of the record in its file, from 1, header not counted
TEXT = "text"

ID_COLUMNS = (ITEM_ID, USER_ID)

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


_ITEM = Column(ITEM_ID, pa.string(), "id of the item, unique", nullable=False)
_USER = Column(USER_ID, pa.string(), "id of the user, unique", nullable=False)
_ANSWER = (
    Column(TEXT, pa.string(), "accepted answer as one text; null when there is none"),
    Column("status", pa.string(), "ok, repaired, no_answer, quarantined or fallback"),
    Column("reason", pa.string(), "why the answer was repaired or refused"),
    Column("raw", pa.string(), "what the model returned"),
    Column("request_key", pa.string(), "key of the stored response"),
    Column("prompt_revision", pa.string(), "revision of the prompt task"),
    Column("model", pa.string(), "identity of the model that answered"),
)

# Columns that every table of a kind has; a table may have more.
TABLES: dict[str, tuple[Column, ...]] = {
    "items": (_ITEM, Column(TITLE, pa.string(), "name shown to people")),
    "users": (_USER,),
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
        Column("action", pa.string(), "dropped (the row) or cleared (the value)", nullable=False),
    ),
    "item_answers": (_ITEM, *_ANSWER),
    "user_answers": (_USER, *_ANSWER),
    "recorded": (
        Column("entity_id", pa.string(), "item or user that the answer is about", nullable=False),
        Column(TEXT, pa.string(), "recorded answer; null when none was given"),
    ),
    "ranks": (
        _USER,
        Column("user", pa.int64(), "position of the user", nullable=False),
        Column("item", pa.int64(), "position of the target", nullable=False),
        Column("rank", pa.float64(), "rank of the target from 1, ties counted half"),
        Column("n_candidates", pa.int64(), "ranked candidates"),
    ),
    "ctr": (
        _USER,
        Column("user", pa.int64(), "position of the user", nullable=False),
        Column("item", pa.int64(), "position of the item", nullable=False),
        Column(ROW, pa.int64(), "row of the training data", nullable=False),
        Column(LABEL, pa.float32(), "1 positive, 0 negative"),
        Column("p", pa.float32(), "predicted probability"),
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
