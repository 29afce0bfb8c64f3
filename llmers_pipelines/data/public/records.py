"""Records of one line each, as JSON or as a Python literal, without running anything."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from .lines import MAX_LINE, decode, read_lines
from .tables import Faults

MAX_LITERAL = 256 << 10  # bytes of a line that is read as a literal; genuine ones have below 64 KiB


def read_records(
    stream: BinaryIO, table: str, file: str, faults: Faults, *, literal: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row from 1, record); lines that are no record go to ``faults``.

    With ``literal`` a line that is no JSON may be a Python literal such as ``{u'id': u'10'}``: it
    is parsed as data by ``ast.literal_eval``, up to ``MAX_LITERAL`` bytes.
    """
    for line in read_lines(stream, MAX_LINE):
        if not line.whole:
            faults.note(table, file, line.number, "", decode(line.data, "utf-8")[0],
                        "oversized_line")  # fmt: skip
            continue
        if not line.data.strip():
            continue
        content, right = decode(line.data, "utf-8")
        if not right:
            faults.note(table, file, line.number, "", content, "bad_encoding", "mended")
        record = _json(content)
        if record is None and literal:
            if len(line.data) > MAX_LITERAL:
                faults.note(table, file, line.number, "", content, "oversized_line")
                continue
            record = read_literal(content)
        if isinstance(record, dict):
            yield line.number, record
        else:
            faults.note(table, file, line.number, "", content, "malformed_row")


def _json(content: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):  # ValueError also for numbers of thousands of digits
        return None


def read_literal(content: str) -> Any:
    """Return the value of a Python literal, ``None`` where it is none or nested too deeply.

    Only constants and containers are built; names, calls and operators are refused by the parser
    of literals, and nothing is evaluated.
    """
    try:
        return ast.literal_eval(content.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
