"""Parquet tables and the quarantine of a public data set, written row by row or block by block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..quarantine import REASONS
from ..schema import arrow_schema
from .values import sound

ROWS = 50_000  # per batch
CHARS = 8 << 20  # text per batch
_SHOWN = 200
_TEXT, _INT, _FLOAT, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()
TYPES = {"text": _TEXT, "int": _INT, "float": _FLOAT, "flag": _FLAG}


class TableWriter:
    """Writes one table; at most ``ROWS`` rows or ``CHARS`` characters wait in memory."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema, self.rows = schema, 0
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._columns: list[list[Any]] = [[] for _ in schema]
        self._chars = 0
        self._texts = [i for i, f in enumerate(schema) if f.type == _TEXT]

    def add(self, *values: Any) -> None:
        """Add one row, values in the order of the schema."""
        for column, value in zip(self._columns, values, strict=True):
            column.append(value)
        for i in self._texts:
            if values[i] is not None:
                self._chars += len(values[i])
        if len(self._columns[0]) >= ROWS or self._chars > CHARS:
            self.flush()

    def write(self, table: pa.Table) -> None:
        """Add the rows of ``table``, whose columns are cast to the schema."""
        self.flush()
        self.rows += table.num_rows
        self._writer.write_table(table.select(self.schema.names).cast(self.schema))

    def flush(self) -> None:
        """Write what waits in memory."""
        if not self._columns[0]:
            return
        arrays = [pa.array(c, f.type) for c, f in zip(self._columns, self.schema, strict=True)]
        self.rows += len(self._columns[0])
        self._writer.write_table(pa.table(arrays, schema=self.schema))
        self._columns = [[] for _ in self.schema]
        self._chars = 0

    def close(self) -> None:
        self.flush()
        self._writer.close()


class Faults:
    """The quarantine: every value that was refused, cleared or mended, with its place."""

    def __init__(self, path: Path) -> None:
        self._writer = TableWriter(path, arrow_schema("quarantine"))
        self.counts: Counter[str] = Counter()
        self.first: list[dict[str, Any]] = []

    def note(
        self, table: str, file: str, row: int, column: str, value: Any, reason: str,
        action: str = "dropped",
    ) -> None:  # fmt: skip
        """Note one fault; ``action`` is dropped (the row), cleared or mended (the value)."""
        mend = REASONS[reason][1]
        shown = None if value is None else sound(str(value)[:_SHOWN])
        self._writer.add(table, file, row, column, shown, reason, mend, action)
        self.counts[f"{table}.{reason}"] += 1
        if len(self.first) < 20:
            self.first.append(
                {"table": table, "file": file, "row": row, "column": column, "value": shown,
                 "reason": reason, "mend": mend, "action": action}
            )  # fmt: skip

    def note_many(
        self, table: str, file: str, rows: Sequence[int], column: str,
        values: pa.ChunkedArray | pa.Array, reason: str, action: str = "dropped",
    ) -> None:  # fmt: skip
        """Note the same fault of several rows."""
        for row, value in zip(rows, pc.cast(values, pa.string()).to_pylist(), strict=True):
            self.note(table, file, int(row), column, value, reason, action)

    @property
    def rows(self) -> int:
        return sum(self.counts.values())

    def close(self) -> None:
        self._writer.close()


class Build:
    """The tables of one data set while they are made, in a folder of their own."""

    def __init__(self, folder: Path, *, reviews: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.reviews = folder, reviews
        self.faults = Faults(folder / "quarantine.parquet")
        self.tables: dict[str, TableWriter] = {}
        self.notes: list[str] = []  # what a person should know about this copy

    def table(self, name: str, /, **columns: str) -> TableWriter:
        """Open the table ``name``; ``columns`` are name -> text, int, float or flag."""
        schema = pa.schema([pa.field(c, TYPES[t]) for c, t in columns.items()])
        self.tables[name] = TableWriter(self.folder / f"{name}.parquet", schema)
        return self.tables[name]

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.parquet"

    def close(self) -> dict[str, int]:
        """Close all tables; return name -> rows. An empty table is kept: it has its columns."""
        for writer in self.tables.values():
            writer.close()
        return {name: writer.rows for name, writer in self.tables.items()}
