"""Delimited text to Arrow strings: encodings are checked, broken records are reported by number."""

from __future__ import annotations

import codecs
import csv
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa

from .duck import connect
from .schema import DataError

if TYPE_CHECKING:
    from .description import Source

_CHUNK = 1 << 22
_DELIMITERS = (",", "\t", ";", "|")
_REASONS = {
    "TOO MANY COLUMNS": "more values than columns",
    "MISSING COLUMNS": "fewer values than columns",
    "UNQUOTED VALUE": "a quotation mark is not closed",
}
_MAX_RECORD = 16 << 20


def read_csv(file: Path, source: Source) -> tuple[pa.Table, np.ndarray, list[tuple[int, str, str]]]:
    """Return the records as strings, their numbers int64[n] and (number, text, reason) rejected.

    Every column is read as text, so that leading zeros and long numbers survive. Raises
    ``DataError`` for a wrong encoding, naming byte and line, and for a bad header.
    """
    with tempfile.TemporaryDirectory() as folder:
        readable = as_utf8(file, source.encoding, Path(folder))
        first = _first_line(readable, file)
        delimiter = source.delimiter or _guess_delimiter(first, file)
        names = source.names or _header(first, delimiter, file)
        _check_names(names, file)
        return _read(readable, names, delimiter, header=not source.names)


def as_utf8(file: Path, encoding: str, folder: Path, shown: Path | None = None) -> Path:
    """Return a UTF-8 file of the same text with one kind of line ending, ``file`` itself if it is.

    Spreadsheets write CRLF between rows and LF inside cells; the strict parser wants one kind.
    Raises ``DataError``, which names ``shown`` where ``file`` is a copy, at the first wrong byte.
    """
    shown = shown or file
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise DataError(
            f"{shown}: encoding {encoding!r} is not known; use utf-8, latin-1, cp1252 or utf-16"
        ) from None
    mixed = _check_text(file, name, shown)
    if name == "utf-8" and not mixed:
        return file
    copy = folder / "utf8.txt"
    with file.open(encoding=name, newline=None) as old, copy.open("w", encoding="utf-8") as new:
        while block := old.read(_CHUNK):
            new.write(block)
    return copy


def _check_text(file: Path, encoding: str, shown: Path) -> bool:
    """Raise ``DataError`` at the first wrong byte; return whether line endings are mixed."""
    decoder = codecs.getincrementaldecoder(encoding)()
    offset = lines = crlf = 0
    with file.open("rb") as stream:
        head = stream.read(4)
        if encoding == "utf-8" and head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise DataError(f'{shown} is UTF-16 text; set encoding = "utf-16" in its description')
        if head[:2] == b"\x1f\x8b" or head == b"PK\x03\x04":
            raise DataError(f"{shown} is compressed, not text; unpack it first")
        stream.seek(0)
        while True:
            block = stream.read(_CHUNK)
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as fault:
                line = 1 + lines + block[: max(0, fault.start - pending)].count(b"\n")
                raise DataError(
                    f"{shown}: byte 0x{fault.object[fault.start]:02x} at position "
                    f"{offset - pending + fault.start} (line {line}) is not valid {encoding}; save "
                    'the file as UTF-8, or set encoding = "latin-1" (or the one it was written '
                    "in) in its description"
                ) from None
            if not block:
                return 0 < crlf < lines
            if block.endswith(b"\r"):  # keep CRLF in one block
                more = stream.read(1)
                decoder.decode(more)
                block += more
            offset += len(block)
            lines += block.count(b"\n")
            crlf += block.count(b"\r\n")


def _first_line(file: Path, shown: Path) -> str:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        for line in stream:
            if line.strip():
                return line.rstrip("\r\n")
            break
    raise DataError(f"{shown} starts with an empty line; its first line must hold column names")


def _guess_delimiter(line: str, file: Path) -> str:
    counts = {d: len(next(csv.reader([line], delimiter=d))) for d in _DELIMITERS}
    best = max(counts, key=counts.__getitem__)
    if counts[best] < 2:
        raise DataError(
            f"{file}: no delimiter found in the first line {line[:80]!r}; set `delimiter` in its "
            "description"
        )
    return best


def _header(line: str, delimiter: str, file: Path) -> tuple[str, ...]:
    if len(delimiter) > 1:
        return tuple(name.strip() for name in line.split(delimiter))
    return tuple(name.strip() for name in next(csv.reader([line], delimiter=delimiter)))


def _check_names(names: tuple[str, ...], file: Path) -> None:
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice and twice[0]:
        raise DataError(f"{file}: column {twice[0]!r} occurs twice in the header; rename one")
    if "" in names and names.index("") > 0:
        place = names.index("") + 1
        raise DataError(f"{file}: column {place} of the header has no name; give it one")


def _read(
    file: Path, names: tuple[str, ...], delimiter: str, *, header: bool
) -> tuple[pa.Table, np.ndarray, list[tuple[int, str, str]]]:
    columns = [name or "unnamed" for name in names]  # a data frame's index has no name
    connection = connect()

    def run(*, strict: bool) -> pa.Table:
        options = (
            "auto_detect=false, delim=$delim, quote='\"', escape='\"', header=$header, "
            f"columns=$columns, max_line_size={_MAX_RECORD}"
            + ("" if strict else ", store_rejects=true")
        )
        values = {
            "file": str(file), "delim": delimiter, "header": header,
            "columns": {c: "VARCHAR" for c in columns},
        }  # fmt: skip
        query = f"SELECT * FROM read_csv($file, {options})"
        return connection.sql(query, params=values).to_arrow_table()

    try:
        table = run(strict=True)
        return table, np.arange(1, table.num_rows + 1), []
    except duckdb.InvalidInputException:
        table = run(strict=False)
    faults = connection.execute(
        "SELECT line, any_value(csv_line), any_value(error_type::VARCHAR) FROM reject_errors "
        "GROUP BY line ORDER BY line"
    ).fetchall()
    rejects = [
        (int(line) - header, text or "", _REASONS.get(kind or "", str(kind).lower()))
        for line, text, kind in faults
    ]
    every = np.arange(1, table.num_rows + len(rejects) + 1)
    rows = np.setdiff1d(every, np.array([r[0] for r in rejects]))[: table.num_rows]
    return table, rows, rejects
