"""Delimited text as columns of strings, block by block; malformed rows go to quarantine."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from ..schema import DataError
from .lines import decode, read_blocks, read_lines
from .tables import Faults

_UNIT = "\x1f"  # stands for a delimiter of several characters


@dataclass
class Block:
    """Some rows of a table as strings; ``rows`` are their numbers in the file, from 1."""

    table: str
    file: str
    rows: np.ndarray
    columns: pa.Table
    faults: Faults

    def text(self, name: str) -> pa.ChunkedArray:
        """Return a column, "" as null."""
        column = pc.utf8_trim_whitespace(self.columns[name])
        return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)

    def drop(self, bad: np.ndarray, name: str, reason: str) -> None:
        """Drop the rows of ``bad`` (bool[n]) for ``reason``."""
        if not bad.any():
            return
        mask = pa.array(bad)
        self.faults.note_many(self.table, self.file, self.rows[bad].tolist(), name,
                              self.columns[name].filter(mask), reason)  # fmt: skip
        self.columns = self.columns.filter(pa.array(~bad))
        self.rows = self.rows[~bad]

    def need(self, *names: str) -> None:
        """Drop the rows without an id in one of ``names``."""
        for name in names:
            self.drop(np.asarray(pc.is_null(self.text(name))), name, "null_id")

    def need_numbers(self, name: str, reason: str, *, whole: bool = False) -> None:
        """Drop the rows whose ``name`` is no number (no whole one)."""
        try:
            pc.cast(self.columns[name], pa.int64() if whole else pa.float64())
        except pa.ArrowInvalid:
            form = r"^\s*[-+]?\d{1,18}\s*$" if whole else r"^\s*[-+]?(\d+\.?\d*|\.\d+)\s*$"
            good = pc.match_substring_regex(self.columns[name], form)
            self.drop(~np.asarray(pc.fill_null(good, False)), name, reason)

    def numbers(self, name: str, *, whole: bool = False) -> pa.ChunkedArray:
        """Return a checked column as int64 or float64."""
        return pc.cast(pc.utf8_trim_whitespace(self.columns[name]),
                       pa.int64() if whole else pa.float64())  # fmt: skip


def read_delimited(
    stream: BinaryIO, names: Sequence[str], delimiter: str, table: str, file: str, faults: Faults,
    *, encoding: str = "utf-8", header: bool = False,
) -> Iterator[Block]:  # fmt: skip
    """Yield the rows of an unquoted file in blocks.

    Raises ``DataError`` when the first line of a file with ``header`` holds other names.
    """
    start = 1
    for data in read_blocks(stream):
        if header and start == 1:
            first, _, data = data.partition(b"\n")
            check_header(decode(first, encoding)[0].rstrip("\r").split(delimiter), names, file)
            header = False
        content = _content(data, encoding, start, table, file, faults)
        if len(delimiter) > 1:
            content = content.replace(_UNIT, " ").replace(delimiter, _UNIT)
        block = _parse(content, names, delimiter if len(delimiter) == 1 else _UNIT, start, table,
                       file, faults)  # fmt: skip
        start += content.count("\n")
        yield block


def _content(
    data: bytes, encoding: str, start: int, table: str, file: str, faults: Faults
) -> str:  # fmt: skip
    content, right = decode(data, encoding)
    if right:
        return content
    lines = []
    for i, line in enumerate(data.split(b"\n")):
        plain, fine = decode(line, encoding)
        if not fine:
            faults.note(table, file, start + i, "", plain, "bad_encoding", "mended")
        lines.append(plain)
    return "\n".join(lines)


def _parse(
    content: str, names: Sequence[str], delimiter: str, start: int, table: str, file: str,
    faults: Faults,
) -> Block:  # fmt: skip
    refused: list[int] = []

    def refuse(row: pacsv.InvalidRow) -> str:
        refused.append(row.number - 1)
        faults.note(table, file, start + row.number - 1, "", row.text, "malformed_row")
        return "skip"

    if not content:
        empty = pa.table({n: pa.array([], pa.string()) for n in names})
        return Block(table, file, np.zeros(0, np.int64), empty, faults)
    data = content.encode()
    columns = pacsv.read_csv(
        pa.BufferReader(data),
        read_options=pacsv.ReadOptions(
            use_threads=False, column_names=list(names), block_size=len(data) + 1
        ),
        parse_options=pacsv.ParseOptions(
            delimiter=delimiter, quote_char=False, ignore_empty_lines=False,
            invalid_row_handler=refuse,
        ),
        convert_options=pacsv.ConvertOptions(
            column_types={n: pa.string() for n in names}, strings_can_be_null=False
        ),
    )  # fmt: skip
    rows = np.setdiff1d(np.arange(columns.num_rows + len(refused)), refused) + start
    return Block(table, file, rows, columns, faults)


def read_quoted(
    stream: BinaryIO, names: Sequence[str], table: str, file: str, faults: Faults
) -> Iterator[tuple[int, list[str]]]:
    """Yield (row from 1, values) of a comma-separated file with header and quoted values.

    Each line is parsed on its own, so that a stray quotation mark spoils one row, not the rest.
    """
    for line in read_lines(stream):
        content, right = decode(line.data, "utf-8")
        if line.number == 1:
            check_header(content.split(","), names, file)
            continue
        row = line.number - 1
        if not right:
            faults.note(table, file, row, "", content, "bad_encoding", "mended")
        try:
            values = next(csv.reader([content], strict=True)) if content else []
        except csv.Error:
            values = []
        if len(values) == len(names):
            yield row, values
        else:
            faults.note(table, file, row, "", content, "malformed_row")


def check_header(found: Sequence[str], names: Sequence[str], file: str) -> None:
    """Raise ``DataError`` when the header of ``file`` is not ``names``."""
    plain = [f.strip().strip('"') for f in found]
    if plain != list(names):
        raise DataError(
            f"{file}: its columns are {', '.join(plain)[:200]}; expected {', '.join(names)}. It is "
            "another edition of the data, or not this file"
        )
