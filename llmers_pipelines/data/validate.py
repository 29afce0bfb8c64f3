"""From raw records to valid tables: faulty rows go to quarantine, faulty tables raise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .description import Source
from .duck import connect
from .ids import ids_as_text
from .quarantine import Sieve, count_reasons, fault_lines
from .schema import (
    ITEM_ID,
    POSITION,
    RATING,
    ROW,
    TIMESTAMP,
    TITLE,
    USER_ID,
    DataError,
)
from .sources import RawTable, plain_columns
from .strict_toml import near
from .times import Times, parse_times

MAX_ID = 512  # characters
RELATION = "relation"
# Ids that a row of an extra table is about: without one it says nothing.
_KEYS = (USER_ID, ITEM_ID, "head_id", "tail_id", "entity_id", "impression_id")
_OWNERS = {
    USER_ID: "the users and the interactions", ITEM_ID: "the items",
    "entity_id": "the triples of [kg]",
}  # fmt: skip
_MENDS = {
    USER_ID: "write the id as in the interactions", ITEM_ID: "write the id as in the items",
    "entity_id": "write the id as in head_id and tail_id",
}  # fmt: skip


@dataclass(frozen=True)
class Checked:
    """A valid table, what was left out of it, and facts about it."""

    table: pa.Table
    quarantine: pa.Table
    info: dict[str, Any]


def check_entities(raw: RawTable, source: Source, id_column: str) -> Checked:
    """Return the valid rows of a table of items or users, one per id, id column first.

    Raises ``DataError`` for missing columns and tables without a valid row.
    """
    table, sieve = _start(raw, source, [id_column])
    table = _check_ids(table, sieve, source, [id_column])
    ids = table[id_column]
    codes = np.asarray(pc.dictionary_encode(ids.combine_chunks()).indices.fill_null(-1))
    good = np.flatnonzero(sieve.keep)
    first = np.zeros(len(codes), bool)
    first[good[np.unique(codes[good], return_index=True)[1]]] = True
    sieve.drop(~first, _name(source, id_column), ids, "duplicate_id")
    table = _check_fields(table, sieve, source)
    if id_column == ITEM_ID:
        title = table[TITLE] if TITLE in table.column_names else pa.nulls(len(table), pa.string())
        table = _set(table, TITLE, pc.cast(title, pa.string()))
    return _finish(table, sieve, raw, first_columns=[id_column])


def check_interactions(raw: RawTable, source: Source, item_ids: pa.ChunkedArray) -> Checked:
    """Return the valid interactions: ids as text, ``timestamp`` in seconds or ``position``, rating.

    Rows keep the order of the file; where moments are finer than seconds, the order of moments.
    ``info`` holds ``clock`` (seconds, order or none) and ``unknown_items`` (kept ones).
    """
    table, sieve = _start(raw, source, [USER_ID, ITEM_ID])
    table = _check_ids(table, sieve, source, [USER_ID, ITEM_ID])
    items = table[ITEM_ID]
    unknown = np.asarray(pc.is_null(pc.index_in(items, value_set=item_ids.combine_chunks())))
    info: dict[str, Any] = {"hint": _hint(items.filter(pa.array(unknown)), item_ids)}
    if source.unknown_items == "quarantine":
        sieve.drop(unknown, _name(source, ITEM_ID), items, "unknown_item")
        info["unknown_items"] = []
    else:
        new = pc.unique(items.filter(pa.array(unknown & sieve.keep)))
        info["unknown_items"] = new.to_pylist()
    table, times = _check_times(table, sieve, source)
    info["clock"] = "none" if times is None else "seconds" if times.clock else "order"
    if RATING in table.column_names:
        table = _check_rating(table, sieve, source)
    table = _check_fields(table, sieve, source)
    table = _set(table, ROW, pa.array(raw.rows, pa.int64()))
    first = [USER_ID, ITEM_ID] + [c for c in (TIMESTAMP, POSITION) if c in table.column_names]
    checked = _finish(table, sieve, raw, first_columns=first, info=info)
    if times is not None and times.finer_than_seconds:
        order = np.argsort(times.values[sieve.keep], kind="stable")
        return Checked(checked.table.take(pa.array(order)), checked.quarantine, info)
    return checked


def check_extra(raw: RawTable, source: Source, known: Mapping[str, pa.ChunkedArray]) -> Checked:
    """Return the usable rows of a table beside the log, its id columns (``*_id``) as text.

    Rows without an id or relation that the table is keyed by are dropped, oversized texts cleared.
    A row about an id that ``known`` (``user_id``, ``item_id``, ``entity_id`` -> ids) lacks stays:
    ``info["warnings"]`` counts them and shows the first.
    """
    table, sieve = _start(raw, source, [])
    ids = [c for c in table.column_names if c.endswith("_id")]
    before = {name: table[name] for name in ids}
    required = [c for c in ids if c in _KEYS]
    table = _check_ids(table, sieve, source, required)
    for name in (c for c in ids if c not in required):
        table = _set(table, name, ids_as_text(table[name], source.ids)[0])
    if source.name == "kg" and RELATION in table.column_names:
        relation = pc.utf8_trim_whitespace(pc.cast(table[RELATION], pa.string()))
        empty = np.asarray(pc.fill_null(pc.equal(relation, ""), True))
        sieve.drop(empty, _name(source, RELATION), table[RELATION], "no_relation")
    table = _check_fields(table, sieve, source)
    warnings = []
    for name in (c for c in ids if c in known):
        lacking = pc.is_null(pc.index_in(table[name], value_set=known[name].combine_chunks()))
        rows = np.flatnonzero(np.asarray(lacking) & sieve.keep)
        if len(rows):
            value = str(before[name][int(rows[0])].as_py())[:80]
            warnings.append(
                f"{raw.file}: {len(rows)} of {len(table)} rows have {name} of which "
                f"{_OWNERS[name]} know nothing; first: row {raw.rows[rows[0]]}, column "
                f"{_name(source, name)!r}: {value!r}; {_MENDS[name]}, or remove the rows"
            )
    kept = table if sieve.keep.all() else table.filter(pa.array(sieve.keep))
    return Checked(kept, sieve.quarantine(), {"warnings": warnings})


def _start(raw: RawTable, source: Source, needed: list[str]) -> tuple[pa.Table, Sieve]:
    """Rename columns to our names; whole-table faults raise."""
    names = raw.table.column_names
    for ours, theirs in source.columns.items():
        if theirs not in names:
            raise DataError(
                f"{raw.file} has no column {theirs!r}, which the description maps to {ours}"
                f"{near(theirs, names) or ';'} columns found: {', '.join(names)}"
            )
    taken = {theirs: ours for ours, theirs in source.columns.items()}
    renamed = [taken.get(n) or (f"{n}_source" if n in source.columns else n) for n in names]
    for column in needed:
        if column not in renamed:
            raise DataError(
                f"{raw.file} has no column for {column}; map one under [{source.name}.columns], "
                f'like {column} = "{names[0]}"; columns found: {", ".join(names)}'
            )
    if raw.table.num_rows == 0 and needed:
        raise DataError(
            f"{raw.file} has column names but no readable rows; write the file again"
            + (f" ({len(raw.rejects)} records were malformed)" if raw.rejects else "")
        )
    table = raw.table.rename_columns(renamed)
    separators = {spec.column: spec.separator for spec in source.fields.values()}
    table = plain_columns(table, separators, raw.file)
    sieve = Sieve(source.name, raw.file, raw.rows)
    if raw.rejects:
        told = [(r.row, r.column, r.value, r.reason, r.mend) for r in raw.rejects]
        sieve.reject(*zip(*told, strict=True))
    return table, sieve


def _check_ids(table: pa.Table, sieve: Sieve, source: Source, columns: list[str]) -> pa.Table:
    for column in columns:
        before = table[column]
        ids, lost = ids_as_text(before, source.ids)
        shown = _name(source, column)
        sieve.drop(lost, shown, before, "inexact_id")
        sieve.drop(np.asarray(pc.is_null(ids)), shown, before, "null_id")
        long = np.asarray(pc.fill_null(pc.greater(pc.utf8_length(ids), MAX_ID), False))
        sieve.drop(long, shown, ids, "oversized_id")
        table = _set(table, column, ids)
    return table


def _check_times(table: pa.Table, sieve: Sieve, source: Source) -> tuple[pa.Table, Times | None]:
    column = next((c for c in (TIMESTAMP, POSITION) if c in table.column_names), "")
    if not column:
        return table, None
    before = table[column]
    times = parse_times(before, "order" if column == POSITION else source.time)
    shown = _name(source, column)
    sieve.drop(times.missing, shown, before, "missing_time")
    sieve.drop(times.bad, shown, before, "unparsable_time")
    table = table.drop_columns([column])
    return _set(table, TIMESTAMP if times.clock else POSITION, pa.array(times.seconds())), times


def _check_rating(table: pa.Table, sieve: Sieve, source: Source) -> pa.Table:
    before = table[RATING]
    values, bad = to_numbers(before)
    shown = _name(source, RATING)
    sieve.drop(bad, shown, before, "unparsable_rating")
    if source.rating:
        low, high = source.rating
        sieve.drop((values < low) | (values > high), shown, before, "rating_out_of_range")
    return _set(table, RATING, pa.array(values.astype(np.float32), mask=np.isnan(values)))


def _check_fields(table: pa.Table, sieve: Sieve, source: Source) -> pa.Table:
    for spec in source.fields.values():
        if spec.column not in table.column_names:
            raise DataError(
                f"{sieve.file}: field {spec.name!r} reads column {spec.column!r}, which is not "
                f"there{near(spec.column, table.column_names) or ';'} columns: "
                f"{', '.join(table.column_names)}"
            )
        if spec.name != spec.column and spec.name in table.column_names:
            raise DataError(
                f"{sieve.file}: field {spec.name!r} reads column {spec.column!r} but a column "
                f"{spec.name!r} exists as well; give the field another name"
            )
        column = table[spec.column]
        if spec.extract:
            column = _year(column, from_title=spec.extract == "title_year")
        if spec.separator and pa.types.is_string(column.type):
            parts = rf"\s*{re.escape(spec.separator)}\s*"
            column = pc.replace_substring_regex(column, parts, "|")
        if spec.missing:
            none = pc.is_in(pc.cast(column, pa.string()), value_set=pa.array(spec.missing))
            column = pc.if_else(none, pa.scalar(None, column.type), column)
        if spec.kind == "number":
            values, bad = to_numbers(column)
            sieve.clear(bad, _name(source, spec.column), column, "unparsable_number")
            column = pa.chunked_array([pa.array(values, mask=np.isnan(values))])
        table = _set(table, spec.name, column)
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in (ITEM_ID, USER_ID) or not pa.types.is_string(column.type):
            continue
        long = np.asarray(pc.fill_null(pc.greater(pc.utf8_length(column), source.max_chars), False))
        if long.any():
            sieve.clear(long, _name(source, name), column, "oversized_text")
            table = _set(table, name, pc.if_else(long, pa.scalar(None, pa.string()), column))
    return table


def _finish(
    table: pa.Table,
    sieve: Sieve,
    raw: RawTable,
    first_columns: list[str],
    info: dict[str, Any] | None = None,
) -> Checked:
    quarantine = sieve.quarantine()
    table = table if sieve.keep.all() else table.filter(pa.array(sieve.keep))
    if table.num_rows == 0:
        what = "interactions" if USER_ID in first_columns and ITEM_ID in first_columns else "rows"
        counts = ", ".join(f"{n} {r.split('.')[1]}" for r, n in count_reasons(quarantine).items())
        hint = f". {info['hint']}" if info and info.get("hint") else ""
        raise DataError(
            f"{raw.file}: no valid {what} left ({counts}). First: "
            f"{fault_lines(quarantine, 1)[0]}{hint}"
        )
    rest = [c for c in table.column_names if c not in first_columns]
    return Checked(table.select([*first_columns, *rest]), quarantine, info or {})


def to_numbers(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return float64[n] (NaN where empty or bad) and bool[n], true where not a finite number."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        connection = connect()
        connection.register("log", pa.table({"t": column}))
        query = "SELECT try_cast(nullif(trim(t), '') AS DOUBLE) AS number FROM log"
        numbers = connection.sql(query).to_arrow_table()["number"]
        empty = np.asarray(pc.fill_null(pc.equal(pc.utf8_trim_whitespace(column), ""), True))
    else:
        numbers = pc.cast(column, pa.float64())
        empty = np.asarray(pc.is_null(numbers, nan_is_null=True))
    values = numbers.to_numpy().astype(np.float64)  # null becomes NaN
    finite = np.isfinite(values)
    return np.where(finite, values, np.nan), ~empty & ~finite


def _year(column: pa.ChunkedArray, *, from_title: bool) -> pa.ChunkedArray:
    """Return the year of dates, or of titles like "Name (1995)", as text; null without one."""
    text = pc.cast(column, pa.string())
    year = r"(?P<year>(?:1[5-9]|20)\d\d)"
    if from_title:
        return pc.struct_field(pc.extract_regex(text, rf"(?s).*\({year}\)"), "year")
    first = pc.struct_field(pc.extract_regex(text, rf"^\s*{year}(?:\D|$)"), "year")
    last = pc.struct_field(pc.extract_regex(text, rf"(?:^|\D){year}\s*$"), "year")
    return pc.coalesce(first, last)


def _hint(unknown: pa.ChunkedArray, known: pa.ChunkedArray) -> str:
    """Say what is wrong when unknown ids equal known ones but for zeros or a decimal point."""
    sample = pc.unique(unknown).drop_null()[:1000]
    if len(sample) == 0:
        return ""
    found = pc.index_in(ids_as_text(sample, "integer")[0],
                        value_set=ids_as_text(known, "integer")[0].combine_chunks())  # fmt: skip
    at = pc.index(pc.is_valid(found), True).as_py()
    if at < 0:
        return ""
    return (
        f"Item {sample[at].as_py()!r} of the interactions looks like "
        f"{known[found[at].as_py()].as_py()!r} of the catalog: "
        'set ids = "integer" for both, or write the ids alike'
    )


def _set(table: pa.Table, name: str, column: pa.ChunkedArray | pa.Array) -> pa.Table:
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, column)
    return table.append_column(name, column)


def _name(source: Source, column: str) -> str:
    return source.columns.get(column, column)
