"""Lines of JSON objects to Arrow: the encoding is checked, lines of another kind are reported."""

from __future__ import annotations

import codecs
import gzip
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from .csv_source import as_utf8
from .duck import connect
from .schema import DataError

if TYPE_CHECKING:
    from .description import Source

LINE_MEND = "write one JSON object per line"
_FALSE_GUESSES = ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIME", "UUID", "JSON")
_OPTIONS = "format='newline_delimited', ignore_errors=true, maximum_object_size=104857600"
_SHOWN = 200  # characters of a line
_WORDS = {"ARRAY": "an array", "VARCHAR": "a string", "BOOLEAN": "true or false", "NULL": "null"}


def read_jsonl(
    file: Path, source: Source, id_columns: set[str]
) -> tuple[pa.Table, np.ndarray, list[tuple[int, str, str]]]:
    """Return the objects, their numbers int64[n] and (number, text, reason) of other lines.

    Lines are counted without empty ones. What DuckDB would rewrite (dates, UUIDs, mixed types) and
    the ids stay text. Raises ``DataError`` for a wrong encoding, naming byte and line, and where no
    line is an object.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain = _unpacked(file, Path(folder))
        with plain.open("rb") as stream:
            marked = stream.read(3) == codecs.BOM_UTF8  # DuckDB takes the mark for a part of line 1
        encoding = "utf-8-sig" if marked else source.encoding
        plain = as_utf8(plain, encoding, Path(folder), shown=file)
        kinds = _kinds(plain)
        good = np.array([kind == "OBJECT" for kind in kinds], bool)
        rejects = []
        if not good.all():
            copy = Path(folder) / "objects.jsonl"
            rejects = _sort_out(plain, copy, kinds)
            plain = copy
        if not good.any():
            first = f"; the first line is {rejects[0][1][:80]!r}" if rejects else ""
            raise DataError(f"{file}: no line holds a JSON object{first}; {LINE_MEND}")
        return _read(plain, id_columns), np.flatnonzero(good) + 1, rejects


def _unpacked(file: Path, folder: Path) -> Path:
    if file.suffix != ".gz":
        return file
    copy = folder / "unpacked.jsonl"
    try:
        with gzip.open(file) as packed, copy.open("wb") as out:
            shutil.copyfileobj(packed, out)
    except (OSError, EOFError) as fault:
        raise DataError(f"{file} cannot be unpacked: {fault}; get the file again") from None
    return copy


def _kinds(file: Path) -> list[str]:
    """Return the JSON type of each line that is not empty, "" where it is no JSON."""
    lines = connect().sql(
        f"SELECT coalesce(json_type(json), '') AS kind FROM read_ndjson_objects($file, {_OPTIONS})",
        params={"file": str(file)},
    )
    return lines.to_arrow_table()["kind"].to_pylist()


def _sort_out(file: Path, copy: Path, kinds: list[str]) -> list[tuple[int, str, str]]:
    """Write the objects alone to ``copy``; return the other lines as they stand in ``file``."""
    rejects = []
    with file.open("rb") as lines, copy.open("wb") as out:
        full = (line for line in lines if line.strip())
        for number, (line, kind) in enumerate(zip(full, kinds, strict=True), 1):
            if kind == "OBJECT":
                out.write(line)
                continue
            text = line.decode(errors="replace").strip()[:_SHOWN]
            found = f"{_WORDS.get(kind, 'a number')}, not an object" if kind else "not valid JSON"
            rejects.append((number, text, f"the line is {found}"))
    return rejects


def _read(file: Path, id_columns: set[str]) -> pa.Table:
    connection = connect()
    guessed = connection.execute(
        f"DESCRIBE SELECT * FROM read_json($file, {_OPTIONS}, sample_size=-1)", {"file": str(file)}
    ).fetchall()
    columns = {
        name: "VARCHAR" if kind in _FALSE_GUESSES or name in id_columns else kind
        for name, kind, *_ in guessed
    }
    query = f"SELECT * FROM read_json($file, {_OPTIONS}, columns=$columns)"
    return connection.sql(query, params={"file": str(file), "columns": columns}).to_arrow_table()
