"""The entries of a file of rankings as columns, and the rows that cannot be used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .ids import bytes_as_text, ids_as_text, is_bytes
from .ranking_spec import RankingSpec
from .sources import RawTable
from .training import IdMap, TrainingData

_SHOWN = 80  # characters of a value
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_REFUSED = pa.schema([
    ("row", pa.int64()), ("column", pa.string()), ("value", pa.string()), ("reason", pa.string()),
])  # fmt: skip


@dataclass(frozen=True)
class Entries:
    """Ranked items as the file has them, in its order; ``user`` and ``item`` are 0 if unknown."""

    at: np.ndarray  # the record of the table that holds the entry
    user: np.ndarray
    position: np.ndarray  # float64, 0 where none is told, NaN where it is no number
    rank: np.ndarray
    item: np.ndarray
    distance: np.ndarray  # as told: distance or confidence
    shown: dict[str, pa.ChunkedArray]  # by column: the values that a refusal shows


@dataclass
class Refusals:
    """Rows that cannot be used; kept as columns, because a wrong id may concern every row."""

    order: list[tuple[int, int]] = field(default_factory=list)  # record, entry
    row: list[int] = field(default_factory=list)
    column: list[str] = field(default_factory=list)
    value: list[str] = field(default_factory=list)
    reason: list[str] = field(default_factory=list)

    def add(
        self, order: Iterable[tuple[int, int]], rows: list[int], column: str, values: list[Any],
        reason: str | list[str],
    ) -> None:  # fmt: skip
        """Refuse ``rows`` (numbers in the file) for ``reason``, of all of them or of each."""
        n = len(rows)
        self.order += order
        self.row += rows
        self.column += [column] * n
        self.value += [_text(v) for v in values]
        self.reason += [reason] * n if isinstance(reason, str) else reason

    def table(self) -> pa.Table:
        """Return row, column, value, reason in the order of the file."""
        columns = (self.row, self.column, self.value, self.reason)
        arrays = [pa.array(c, f.type) for c, f in zip(columns, _REFUSED, strict=True)]
        order = sorted(range(len(self.row)), key=self.order.__getitem__)
        return pa.table(arrays, schema=_REFUSED).take(pa.array(order, pa.int64()))


def long_entries(spec: RankingSpec, raw: RawTable, data: TrainingData, _: Refusals) -> Entries:
    """Return the entries of one row per ranked item."""
    n, told = raw.table.num_rows, spec.distance or spec.confidence
    user, _lost = ids_as_text(raw.table[spec.user], spec.ids)
    item, _lost = ids_as_text(raw.table[spec.item], spec.ids)
    shown = {c: raw.table[c] for c in (spec.position, spec.rank, told) if c}
    return Entries(
        np.arange(n), _indexes(data.users, user), _positions(spec, raw),
        _numbers(raw.table[spec.rank]), _indexes(data.items, item),
        _numbers(raw.table[told]) if told else np.zeros(n),
        {**shown, spec.user: user, spec.item: item},
    )  # fmt: skip


def listed_entries(
    spec: RankingSpec, raw: RawTable, data: TrainingData, refused: Refusals
) -> Entries:
    """Return the entries of one ranking per row; a list that does not fit is refused as a whole."""
    user, _ = ids_as_text(raw.table[spec.user], spec.ids)
    told = spec.distance or spec.confidence
    lists = _lists(raw.table[spec.items], spec.separator)
    length = _lengths(lists)
    values = _lists(raw.table[told], spec.separator) if told else None
    given = length if values is None else _lengths(values)
    empty = np.flatnonzero(length == 0)
    shown = raw.table[spec.items].take(empty).to_pylist()
    why = "no items; list them best first"
    refused.add(whole_records(empty), raw.rows[empty].tolist(), spec.items, shown, why)
    if told:
        odd = np.flatnonzero((length > 0) & (given != length))
        why = [f"{given[n]} values for {length[n]} items; give one for each" for n in odd]
        shown = raw.table[told].take(odd).to_pylist()
        refused.add(whole_records(odd), raw.rows[odd].tolist(), told, shown, why)
    fits = np.flatnonzero((length > 0) & (given == length))
    length = length[fits]
    at = np.repeat(fits, length)
    rank = np.arange(len(at)) - np.repeat(np.cumsum(length) - length, length) + 1
    item, _ = ids_as_text(lists.take(fits).flatten(), spec.ids)
    columns = {spec.user: user.take(at), spec.items: item}
    distance = np.zeros(len(at))
    if values is not None:
        columns[told] = pa.chunked_array([values.take(fits).flatten()])
        distance = _numbers(columns[told])
    if spec.position:
        columns[spec.position] = raw.table[spec.position].take(at)
    return Entries(
        at, _indexes(data.users, user)[at], _positions(spec, raw)[at], rank.astype(np.float64),
        _indexes(data.items, item), distance, columns,
    )  # fmt: skip


def whole_records(at: np.ndarray) -> list[tuple[int, int]]:
    """Return the order of refusals that concern the records ``at`` as a whole."""
    return [(n, 0) for n in at.tolist()]


def _lists(column: pa.ChunkedArray, separator: str) -> pa.Array:
    """Return lists, also of a column whose cells are text; other values are empty lists."""
    cells = _plain(column).combine_chunks()
    kind = cells.type
    if any(of(kind) for of in _LISTS):
        return cells
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        blank = pc.equal(pc.utf8_trim_whitespace(cells), "")
        cells = pc.if_else(blank, pa.scalar(None, kind), cells)
        return pc.split_pattern(cells, separator)  # ids and numbers are trimmed when they are read
    return pa.nulls(len(cells), pa.list_(pa.string()))


def _lengths(lists: pa.Array) -> np.ndarray:
    return pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)


def _indexes(ids: IdMap, names: pa.ChunkedArray) -> np.ndarray:
    """Return int64 positions of ``names``, 0 where unknown; each different name is read once."""
    coded = names.combine_chunks().dictionary_encode()
    known = ids.index(coded.dictionary.to_pylist())
    codes = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False)
    return np.append(known, 0)[codes]


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Return float64, NaN where a value is no number; text is read as Python reads it."""
    column = _plain(column)
    kind = column.type
    number = pa.types.is_primitive(kind) and not pa.types.is_temporal(kind)
    if number or pa.types.is_decimal(kind):
        return pc.cast(column, pa.float64(), safe=False).to_numpy()
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return np.full(len(column), np.nan)
    coded = column.combine_chunks().dictionary_encode()
    read = np.array([*map(_number, coded.dictionary.to_pylist()), np.nan])
    return read[pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False)]


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the values of a dictionary, and bytes as the text that they are."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    return bytes_as_text(column) if is_bytes(column.type) else column


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _positions(spec: RankingSpec, raw: RawTable) -> np.ndarray:
    """Return the position of each record: 0 where none is told, NaN where it cannot be one."""
    if not spec.position:
        return np.zeros(raw.table.num_rows)
    column = _plain(raw.table[spec.position])
    value = _numbers(column)
    told = column.is_valid()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        told = pc.and_(told, pc.fill_null(pc.not_equal(column, ""), False))
    return np.where(told.to_numpy(), np.where(whole(value), value, np.nan), 0)


def whole(value: np.ndarray) -> np.ndarray:
    """Return bool[n]: the whole numbers from 1."""
    with np.errstate(invalid="ignore"):
        return (value >= 1) & (value == np.floor(value)) & np.isfinite(value)


def _text(value: Any) -> str:
    return "" if value is None else str(value)[:_SHOWN]
