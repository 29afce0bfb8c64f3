"""Rows that cannot be used, each with its place, its value, the reason and the mend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .schema import arrow_schema

# reason -> (what it means, what to do)
REASONS = {
    "malformed_row": ("the record cannot be read", "correct the delimiters or quotes of the row"),
    "null_id": ("the id is empty", "fill in the id or remove the row"),
    "no_relation": ("the relation of the triple is empty", "fill it in or remove the row"),
    "inexact_id": (
        "the number has lost digits as a float",
        "write the id as text or as an integer",
    ),
    "oversized_id": ("the id is too long to be one", "map the column that holds the id"),
    "duplicate_id": ("the id occurred before; the first row is kept", "remove one of the rows"),
    "unknown_item": (
        "the item is not in the catalog",
        "add it to the items, remove the row, or set unknown_items = \"keep\"",
    ),
    "missing_time": ("the time is empty", "fill in the time or remove the row"),
    "unparsable_time": (
        "not a time in the unit of the column",
        "write ISO 8601 or seconds since 1970, or set `time` in the description",
    ),
    "unparsable_rating": ("not a number", "write a number or leave the cell empty"),
    "rating_out_of_range": (
        "outside the declared range",
        "correct the value, or `rating` in the description",
    ),
    "unparsable_number": ("not a number; read as empty", "write a number or leave the cell empty"),
    "oversized_text": (
        "longer than max_chars; read as empty",
        "shorten the text or raise max_chars in the description",
    ),
    # Of the files of public data sets, as their publishers give them.
    "oversized_line": ("longer than any record of this file", "get the file again"),
    "bad_encoding": ("bytes that are not UTF-8, read as Windows Latin", "none is needed"),
    "no_label": ("shown, but whether it was clicked is not told", "use a part with labels"),
    "unknown_code": ("a code that stands for nothing", "none is needed"),
    "implausible_time": ("before 1990 or after 2100", "none is needed"),
    "implausible_year": ("not a year in which the book can have appeared", "none is needed"),
    "implausible_age": ("not a reader's age", "none is needed"),
    "html_title": ("page code or tags in a title", "none is needed"),
    "stray_characters": ("characters that no such id has, removed", "none is needed"),
    "shifted_columns": ("two columns run into one, taken apart", "none is needed"),
    "duplicate_row": ("the same user, item and moment came before", "none is needed"),
}  # fmt: skip
_SHOWN = 200  # characters of a value


class Sieve:
    """Collects the faults of one table. ``keep`` bool[n] are the rows that are still good."""

    def __init__(self, table: str, file: str, rows: np.ndarray) -> None:
        self.table, self.file, self.rows = table, file, rows
        self.keep = np.ones(len(rows), bool)
        self._parts: list[pa.Table] = []

    def drop(self, bad: np.ndarray, column: str, values: pa.ChunkedArray, reason: str) -> None:
        """Drop the rows of ``bad`` that are still kept, for ``reason``."""
        bad = bad & self.keep
        self._note(bad, column, values, reason, "dropped")
        self.keep &= ~bad

    def clear(self, bad: np.ndarray, column: str, values: pa.ChunkedArray, reason: str) -> None:
        """Note values that are read as empty; their rows stay."""
        self._note(bad & self.keep, column, values, reason, "cleared")

    def reject(
        self,
        rows: Sequence[int],
        columns: Sequence[str],
        texts: Sequence[str],
        whys: Sequence[str],
        mends: Sequence[str],
    ) -> None:
        """Note records that could not even be read; an empty mend stands for the usual one."""
        usual = REASONS["malformed_row"][1]
        told = [f"{why}: {mend or usual}" for why, mend in zip(whys, mends, strict=True)]
        self._append(np.array(rows, np.int64), pa.array(columns, pa.string()),
                     pa.array([t[:_SHOWN] for t in texts]), "malformed_row",
                     pa.array(told, pa.string()), "dropped")  # fmt: skip

    def _note(
        self, bad: np.ndarray, column: str, values: pa.ChunkedArray, reason: str, action: str
    ) -> None:
        if not bad.any():
            return
        shown = pc.cast(values.filter(pa.array(bad)), pa.string())
        shown = pc.utf8_slice_codeunits(shown, 0, _SHOWN)
        mend = pa.repeat(pa.scalar(REASONS[reason][1]), len(shown))
        self._append(self.rows[bad], column, shown, reason, mend, action)

    def _append(self, rows, column, values, reason, mend, action) -> None:
        n = len(rows)

        def same(value: str) -> pa.Array:
            return pa.repeat(pa.scalar(value, pa.string()), n)

        place = same(column) if isinstance(column, str) else column
        columns = [same(self.table), same(self.file), pa.array(rows, pa.int64()), place, values,
                   same(reason), mend, same(action)]  # fmt: skip
        schema = arrow_schema("quarantine")
        arrays = [
            (c if isinstance(c, pa.ChunkedArray) else pa.chunked_array([c])).cast(f.type)
            for c, f in zip(columns, schema, strict=True)
        ]
        self._parts.append(pa.table(arrays, schema=schema))

    def quarantine(self) -> pa.Table:
        """Return what was noted, in order of the rows (schema ``quarantine``)."""
        if not self._parts:
            return arrow_schema("quarantine").empty_table()
        return pa.concat_tables(self._parts).sort_by("row")


def count_reasons(quarantine: pa.Table) -> dict[str, int]:
    """Return "table.reason" -> rows."""
    counted = quarantine.group_by(["table", "reason"]).aggregate([([], "count_all")]).to_pylist()
    counts = {f"{c['table']}.{c['reason']}": c["count_all"] for c in counted}
    return dict(sorted(counts.items()))


def fault_lines(quarantine: pa.Table, limit: int = 20) -> list[str]:
    """Return the first ``limit`` faults as sentences: file, row, column, value, reason, mend."""
    lines = []
    for f in quarantine.slice(0, limit).to_pylist():
        column = f", column {f['column']!r}" if f["column"] else ""
        meaning = REASONS[f["reason"]][0]
        lines.append(
            f"{f['file']}, row {f['row']}{column}: {f['value']!r}: {meaning} "
            f"({f['reason']}, {f['action']}); {f['mend']}"
        )
    return lines
