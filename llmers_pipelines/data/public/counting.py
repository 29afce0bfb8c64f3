"""Exact counts and repeated rows of a Parquet table in bounded memory.

A table is read once per part, and a part holds the rows whose user (or item) hashes into it: what
must be held at a time is bounded by ``PART`` rows, however long the table is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..schema import ITEM_ID
from ..sources import literal, quote
from .tables import Faults

PART = 2_000_000  # rows of one part
_MEMORY = "192MB"


def connect(spill: Path) -> duckdb.DuckDBPyConnection:
    """Return a DuckDB of little memory that spills to ``spill`` and never fetches extensions."""
    connection = duckdb.connect(
        config={"memory_limit": _MEMORY, "threads": 1, "temp_directory": str(spill)}
    )
    connection.execute("SET autoinstall_known_extensions = false")
    connection.execute("SET enable_progress_bar = false")  # it would go to stdout
    connection.execute("SET preserve_insertion_order = false")
    return connection


def distinct(path: Path, column: str, spill: Path) -> int:
    """Return how many values a column has."""
    parts = _parts(path)
    connection = connect(spill)
    name = quote(column)
    total = 0
    for part in range(parts):
        row = connection.execute(
            f"SELECT count(DISTINCT {name}) FROM read_parquet({literal(str(path))}) "
            f"WHERE hash({name}) % {parts} = {part}"
        ).fetchone()
        total += row[0] if row else 0
    return total


def repeated_rows(path: Path, columns: Sequence[str], spill: Path) -> np.ndarray:
    """Return the places int64[n], from 0 and ascending, of rows that repeat an earlier one.

    Eight bytes are held for each repeated row.
    """
    parts = _parts(path)
    connection = connect(spill)
    keys = ", ".join(quote(c) for c in columns)
    first = quote(columns[0])
    found: list[np.ndarray] = []
    for part in range(parts):
        places = connection.execute(
            f"SELECT place FROM (SELECT file_row_number AS place, row_number() OVER "
            f"(PARTITION BY {keys} ORDER BY file_row_number) AS nth "
            f"FROM read_parquet({literal(str(path))}, file_row_number = true) "
            f"WHERE hash({first}) % {parts} = {part}) WHERE nth > 1"
        ).fetchnumpy()["place"]
        found.append(np.asarray(places, np.int64))
    return np.sort(np.concatenate(found))


def drop_repeated(
    path: Path, table: str, file: str, columns: Sequence[str], spill: Path, faults: Faults | None
) -> int:
    """Remove the rows of ``path`` that repeat an earlier one; return how many there were.

    They are noted in ``faults``, by the row of the raw file where ``source_row`` tells it.
    """
    places = repeated_rows(path, columns, spill)
    if not len(places):
        return 0
    source = pq.ParquetFile(path)
    target = path.with_suffix(".unique")
    start = 0
    with pq.ParquetWriter(target, source.schema_arrow, compression="zstd") as writer:
        for batch in source.iter_batches(batch_size=50_000):
            low, high = np.searchsorted(places, (start, start + batch.num_rows))
            if high > low:
                repeated = np.zeros(batch.num_rows, bool)
                repeated[places[low:high] - start] = True
                gone = batch.filter(pa.array(repeated))
                if faults is not None:
                    rows = gone["source_row"].to_pylist()
                    faults.note_many(table, file, rows, ITEM_ID, gone[ITEM_ID], "duplicate_row")
                start += batch.num_rows
                batch = batch.filter(pa.array(~repeated))
            else:
                start += batch.num_rows
            writer.write_batch(batch)
    target.replace(path)
    return len(places)


def _parts(path: Path) -> int:
    return max(1, -(-pq.ParquetFile(path).metadata.num_rows // PART))
