"""Files and database tables to Arrow, ids as exact text, with the hash of what was read."""

from __future__ import annotations

import glob
import hashlib
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .csv_source import read_csv
from .description import Recorded, Source
from .duck import connect
from .dvc import md5_of, recorded_md5
from .file_hash import file_hash
from .ids import bytes_as_text, is_bytes, text_of_bytes
from .jsonl_source import LINE_MEND, read_jsonl
from .schema import DataError


@dataclass(frozen=True)
class Reject:
    """A record of a file that could not be read."""

    row: int
    value: str
    reason: str
    mend: str = ""  # that of a malformed row when empty
    column: str = ""


@dataclass(frozen=True)
class RawTable:
    """The records of one source as they are; ``rows`` int64 are their numbers in the file."""

    table: pa.Table
    rows: np.ndarray
    file: str
    rejects: tuple[Reject, ...] = ()


def quote(name: str) -> str:
    """Return ``name`` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return ``text`` as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def source_files(source: Source | Recorded, root: Path) -> list[Path]:
    """Return the files of ``source``; a parquet path may be a pattern with ``*``.

    Raises ``DataError`` naming the missing file and its folder.
    """
    path = root / source.path
    if "*" in source.path and source.format == "parquet":
        found = [Path(f) for f in sorted(glob.glob(str(path)))]
    else:
        found = [path] if path.is_file() else []
    if found:
        empty = next((f for f in found if f.stat().st_size == 0), None)
        if empty is None:
            return found
        raise DataError(f"{empty} is empty (0 bytes); write the file again")
    if path.parent.is_dir():
        there = sorted(f.name for f in path.parent.iterdir())[:8]
        raise DataError(
            f"{path} does not exist; its folder holds {', '.join(there) or 'nothing'}; correct "
            "the path in the description or put the file there"
        )
    raise DataError(f"{path} does not exist, nor does its folder; correct the path or the root")


def read_source(source: Source, root: Path, id_columns: Iterable[str] = ()) -> RawTable:
    """Read all records of ``source``; ``id_columns`` (names in the file) come as exact text."""
    files = source_files(source, root)
    file = files[0]
    try:
        match source.format:
            case "csv":
                table, rows, bad = read_csv(file, source)
                rejects = tuple(Reject(*b) for b in bad)
                return RawTable(table, rows, str(file), rejects)
            case "jsonl":
                table, rows, bad = read_jsonl(file, source, set(id_columns))
                rejects = tuple(Reject(*b, mend=LINE_MEND) for b in bad)
                return RawTable(table, rows, str(file), rejects)
            case "parquet":
                listed = ", ".join(literal(str(f)) for f in files)
                table = _arrow(f"SELECT * FROM read_parquet([{listed}])")
            case "duckdb":
                table = _read_duckdb(file, source.table)
            case "sqlite":
                return _read_sqlite(file, source.table)
            case other:
                raise DataError(f"{file}: format {other!r} cannot be read as a table")
    except (duckdb.Error, sqlite3.Error) as fault:
        first = str(fault).splitlines()[0]
        raise DataError(
            f"{file} cannot be read as {source.format}: {first}; check the file and `format`"
        ) from fault
    return RawTable(table, np.arange(1, table.num_rows + 1), str(file))


def _arrow(query: str, connection: duckdb.DuckDBPyConnection | None = None) -> pa.Table:
    return (connection or connect()).sql(query).to_arrow_table()


def _read_duckdb(file: Path, name: str) -> pa.Table:
    connection = connect()
    connection.execute(f"ATTACH {literal(str(file))} AS source (READ_ONLY)")
    tables = connection.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_catalog = 'source'"
    ).fetchall()
    _require_table(name.split(".")[-1], [t for (t,) in tables], file)
    full = ".".join(quote(part) for part in name.split("."))
    return _arrow(f"SELECT * FROM source.{full}", connection)


class _NotUtf8(bytes):
    """The text of a cell whose bytes are not UTF-8."""


def _cell(raw: bytes) -> str | _NotUtf8:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return _NotUtf8(raw)


def _read_sqlite(file: Path, name: str) -> RawTable:
    """Python's own driver reads SQLite: DuckDB's needs an extension from the network."""
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    connection.text_factory = _cell  # one wrong cell is one wrong row
    try:
        tables = connection.execute(
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
        ).fetchall()
        _require_table(name, [t for (t,) in tables], file)
        cursor = connection.execute(f"SELECT * FROM {quote(name)}")
        names = [d[0] for d in cursor.description]
        records, good, rejects = cursor.fetchall(), [], []
    finally:
        connection.close()
    for number, record in enumerate(records, 1):
        wrong = next((i for i, v in enumerate(record) if isinstance(v, _NotUtf8)), None)
        if wrong is None:
            good.append(number)
            continue
        shown = record[wrong].decode(errors="backslashreplace")
        rejects.append(Reject(number, shown, "bytes that are not UTF-8",
                              "write the cell as UTF-8", names[wrong]))  # fmt: skip
    rows = np.array(good, np.int64)
    kept = [records[number - 1] for number in good] if rejects else records
    columns = list(zip(*kept, strict=True)) or [()] * len(names)
    table = pa.table({n: _column(v) for n, v in zip(names, columns, strict=True)})
    return RawTable(table, rows, str(file), tuple(rejects))


def _column(values: tuple[object, ...]) -> pa.Array:
    """SQLite types are per value: a column of one type keeps it, a mixed one becomes text."""
    kinds = {type(v) for v in values if v is not None}
    if len(kinds) <= 1 or kinds == {int, float}:
        try:
            return pa.array(values, pa.float64() if kinds == {int, float} else None)
        except (pa.ArrowInvalid, OverflowError):
            pass
    return pa.array([_as_text(v) for v in values], pa.string())


def _as_text(value: object) -> str | None:
    if value is None or isinstance(value, bytes):
        return text_of_bytes(value)
    return str(value)


def _require_table(name: str, tables: list[str], file: Path) -> None:
    if name not in tables:
        raise DataError(f"{file} has no table {name!r}; it has {', '.join(tables) or 'none'}")


def plain_columns(table: pa.Table, separators: dict[str, str], file: str) -> pa.Table:
    """Return ``table`` with lists joined by their separator, bytes and nested values as text.

    Raises ``DataError`` for a described list column without a separator.
    """
    for i, f in enumerate(table.schema):
        column = table.column(i)
        if pa.types.is_dictionary(f.type):
            column = pc.cast(column, f.type.value_type)
        elif is_bytes(f.type):
            column = bytes_as_text(column)
        elif pa.types.is_list(f.type) or pa.types.is_large_list(f.type):
            separator = separators.get(f.name, "|")
            if not separator:
                raise DataError(
                    f"{file}: column {f.name!r} holds lists; describe it with a separator, like "
                    f'{f.name} = {{ kind = "category", separator = "|" }}'
                )
            words = pc.cast(column, pa.list_(pa.string()))
            column = pc.binary_join(words, separator)
        elif pa.types.is_nested(f.type):
            column = pa.chunked_array(
                [pa.array([None if v is None else str(v) for v in column.to_pylist()], pa.string())]
            )
        else:
            continue
        table = table.set_column(i, f.name, column)
    return table


Known = dict[str, tuple[int, int, str]]


def content_hash(paths: Iterable[Path], known: Known | None = None) -> str:
    """Hash of the contents of ``paths`` in order; independent of where they lie.

    A file that DVC tracks counts by its recorded md5, as long as it is that version. ``known``
    (path -> size, mtime in ns, hash) is read and updated, so that a caller that asks every few
    seconds hashes only what changed.
    """
    total = hashlib.sha256()
    for path in paths:
        md5 = recorded_md5(path)
        if md5 and _remembered(path, "md5", md5_of, known) == md5:
            total.update(f"md5:{md5}".encode())
        else:
            total.update(_remembered(path, "", file_hash, known).encode())
    return total.hexdigest()[:16]


def _remembered(
    path: Path, kind: str, measure: Callable[[Path], str], known: Known | None
) -> str:
    stat = path.stat()
    key = f"{kind}:{path}" if kind else str(path)
    entry = (known or {}).get(key)
    if entry is None or tuple(entry[:2]) != (stat.st_size, stat.st_mtime_ns):
        entry = (stat.st_size, stat.st_mtime_ns, measure(path))
        if known is not None:
            known[key] = entry
    return entry[2]
