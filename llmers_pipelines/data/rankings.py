"""Reading rankings from a file: a row that cannot be used is a value with its place and reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .description import Description, Source
from .ids import ids_as_text
from .ranking_spec import RankingSpec
from .schema import DataError
from .sources import RawTable, read_source
from .strict_toml import near
from .training import IdMap, TrainingData

_SHOWN = 80  # characters of a value
_NO_WHOLE = "not a whole number from 1; write one"
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_REFUSED = pa.schema([
    ("row", pa.int64()), ("column", pa.string()), ("value", pa.string()), ("reason", pa.string()),
])  # fmt: skip


@dataclass(frozen=True)
class ReadRankings:
    """``rows``: user_id, position, rank (from 1, without gaps), item_id, distance.

    ``refused``: row (number in the file), column, value, reason, of what could not be used.
    """

    rows: pa.Table
    refused: pa.Table
    records: int


def ranking_spec(description: Description, name: str = "") -> RankingSpec:
    """Return ``[rankings.<name>]``, without a name the first; DataError where there is none."""
    found = description.rankings
    if not found or (name and name not in found):
        what = f"rankings {name!r}" if name else "rankings"
        raise DataError(
            f"data set {description.name!r} declares no {what}{near(name, list(found)) or ';'} "
            f"there are: {', '.join(found) or 'none'}; add [rankings.{name or 'teacher'}] with a "
            f"path to {description.file}"
        )
    return found[name] if name else next(iter(found.values()))


def count_rankings(spec: RankingSpec, folder: Path) -> int:
    """Return the records of the file; DataError where it or one of its columns is not there."""
    raw = _raw(spec, folder)
    return raw.table.num_rows + len(raw.rejects)


def _raw(spec: RankingSpec, folder: Path) -> RawTable:
    source = Source("rankings", spec.path, spec.format, table=spec.table)
    raw = read_source(source, folder, [spec.user] if spec.items else [spec.user, spec.item])
    _check_columns(spec, raw)
    return raw


@dataclass(frozen=True)
class _Entries:
    """Ranked items as the file has them, in its order; ``user`` and ``item`` are 0 if unknown."""

    at: np.ndarray  # the record of the table that holds the entry
    user: np.ndarray
    position: np.ndarray  # float64, 0 where none is told, NaN where it is no number
    rank: np.ndarray
    item: np.ndarray
    distance: np.ndarray  # as told: distance or confidence
    shown: dict[str, pa.ChunkedArray]  # by column: the values that a refusal shows


@dataclass
class _Refusals:
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
        n = len(rows)
        self.order += order
        self.row += rows
        self.column += [column] * n
        self.value += [_text(v) for v in values]
        self.reason += [reason] * n if isinstance(reason, str) else reason

    def table(self) -> pa.Table:
        columns = (self.row, self.column, self.value, self.reason)
        arrays = [pa.array(c, f.type) for c, f in zip(columns, _REFUSED, strict=True)]
        order = sorted(range(len(self.row)), key=self.order.__getitem__)
        return pa.table(arrays, schema=_REFUSED).take(pa.array(order, pa.int64()))


def read_rankings(
    spec: RankingSpec, folder: Path, data: TrainingData, last: np.ndarray, *, k: int = 0,
    newest: int = 0,
) -> ReadRankings:  # fmt: skip
    """Return the rankings of ``spec`` that fit the log.

    ``last`` int64[U + 1] is each user's newest training position. A row without a position stands
    for it. ``k`` > 0 keeps the first k usable items of a ranking, ``newest`` > 0 the newest
    positions of a user. Raises DataError where the file or a column is missing or no row is usable.
    """
    raw = _raw(spec, folder)
    refused = _Refusals()
    for reject in raw.rejects:  # first, whatever their place
        refused.add([(-1, 0)], [reject.row], "", [reject.value], reject.reason)
    entries = (_listed if spec.items else _long)(spec, raw, data, refused)
    newest_of = last[entries.user]
    position = np.where(entries.position == 0, newest_of, entries.position)
    good = _usable(spec, raw, entries, position, newest_of, refused)
    chosen = good[position[good] > newest_of[good] - newest] if newest else good
    table = refused.table()
    if not len(chosen):
        first = "; ".join(
            f"row {r['row']}, column {r['column']!r}, value {r['value']!r}: {r['reason']}"
            for r in table.slice(0, 3).to_pylist()
        )
        raise DataError(f"{raw.file}: holds no usable ranking: {first or 'it has no rows'}")
    rows = _rows(spec, entries, position, chosen, data, k)
    return ReadRankings(rows, table, raw.table.num_rows + len(raw.rejects))


def _check_columns(spec: RankingSpec, raw: RawTable) -> None:
    there = raw.table.column_names
    needed = [spec.user, *([spec.items] if spec.items else [spec.rank, spec.item])]
    for column in (*needed, spec.position, spec.distance, spec.confidence):
        if column and column not in there:
            raise DataError(
                f"{raw.file}: no column {column!r}{near(column, there) or ';'} found "
                f"{', '.join(there)}; name the columns in [rankings.{spec.name}]"
            )


def _long(spec: RankingSpec, raw: RawTable, data: TrainingData, _: _Refusals) -> _Entries:
    n, told = raw.table.num_rows, spec.distance or spec.confidence
    user, _lost = ids_as_text(raw.table[spec.user], spec.ids)
    item, _lost = ids_as_text(raw.table[spec.item], spec.ids)
    shown = {c: raw.table[c] for c in (spec.position, spec.rank, told) if c}
    return _Entries(
        np.arange(n), _indexes(data.users, user), _positions(spec, raw),
        _numbers(raw.table[spec.rank]), _indexes(data.items, item),
        _numbers(raw.table[told]) if told else np.zeros(n),
        {**shown, spec.user: user, spec.item: item},
    )  # fmt: skip


def _listed(spec: RankingSpec, raw: RawTable, data: TrainingData, refused: _Refusals) -> _Entries:
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
    refused.add(_whole_records(empty), raw.rows[empty].tolist(), spec.items, shown, why)
    if told:
        odd = np.flatnonzero((length > 0) & (given != length))
        why = [f"{given[n]} values for {length[n]} items; give one for each" for n in odd]
        shown = raw.table[told].take(odd).to_pylist()
        refused.add(_whole_records(odd), raw.rows[odd].tolist(), told, shown, why)
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
    return _Entries(
        at, _indexes(data.users, user)[at], _positions(spec, raw)[at], rank.astype(np.float64),
        _indexes(data.items, item), distance, columns,
    )  # fmt: skip


def _whole_records(at: np.ndarray) -> list[tuple[int, int]]:
    return [(n, 0) for n in at.tolist()]


def _lists(column: pa.ChunkedArray, separator: str) -> pa.Array:
    """Return lists, also of a column whose cells are text; other values are empty lists."""
    whole = column.combine_chunks()
    kind = whole.type
    if pa.types.is_dictionary(kind):
        return _lists(pa.chunked_array([pc.cast(whole, kind.value_type)]), separator)
    if any(of(kind) for of in _LISTS):
        return whole
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        blank = pc.equal(pc.utf8_trim_whitespace(whole), "")
        whole = pc.if_else(blank, pa.scalar(None, kind), whole)
        return pc.split_pattern(whole, separator)  # ids and numbers are trimmed when they are read
    return pa.nulls(len(whole), pa.list_(pa.string()))


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
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return pc.cast(column, pa.float64(), safe=False).to_numpy()
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return np.full(len(column), np.nan)
    coded = column.combine_chunks().dictionary_encode()
    read = np.array([*map(_number, coded.dictionary.to_pylist()), np.nan])
    return read[pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False)]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _positions(spec: RankingSpec, raw: RawTable) -> np.ndarray:
    """Return the position of each record: 0 where none is told, NaN where it cannot be one."""
    if not spec.position:
        return np.zeros(raw.table.num_rows)
    column = raw.table[spec.position]
    value = _numbers(column)
    told = column.is_valid()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        told = pc.and_(told, pc.fill_null(pc.not_equal(column, ""), False))
    return np.where(told.to_numpy(), np.where(_whole(value), value, np.nan), 0)


def _whole(value: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return (value >= 1) & (value == np.floor(value)) & np.isfinite(value)


def _usable(
    spec: RankingSpec, raw: RawTable, entries: _Entries, position: np.ndarray,
    newest_of: np.ndarray, refused: _Refusals,
) -> np.ndarray:  # fmt: skip
    """Return the places of the entries without a fault; the first fault of each other is told."""
    left = np.ones(len(entries.at), bool)

    def refuse(where: np.ndarray, column: str, reason: str | Callable[[int], str]) -> None:
        found = np.flatnonzero(where & left)
        left[found] = False
        values = entries.shown[column].take(found).to_pylist()
        told = reason if isinstance(reason, str) else [reason(n) for n in found.tolist()]
        at = entries.at[found]
        order = zip(at.tolist(), found.tolist(), strict=True)
        refused.add(order, raw.rows[at].tolist(), column, values, told)

    item = spec.items or spec.item
    refuse(entries.user == 0, spec.user, "no user of the log; correct the id")
    refuse(entries.item == 0, item, "no item of the catalog; correct the id")
    refuse(newest_of == 0, spec.user, "the user has no training position to teach")
    if spec.position:
        refuse(np.isnan(position), spec.position, _NO_WHOLE)
        refuse(position > newest_of, spec.position, lambda n: (
            f"the user's newest training position is {newest_of[n]}: a ranking from more rows would"
            " have seen held-out ones; export it from training rows"
        ))  # fmt: skip
    if not spec.items:
        refuse(~_whole(entries.rank), spec.rank, _NO_WHOLE)
    told = entries.distance
    if spec.distance:
        refuse(~((told >= 0) & (told < np.inf)), spec.distance,
               "not a number from 0; write the distance of the item")  # fmt: skip
    elif spec.confidence:
        refuse(~((told > 0) & (told <= 1)), spec.confidence,
               "not above 0 and at most 1; write a confidence")  # fmt: skip
    good = np.flatnonzero(left)
    rank, again = _repeated(entries, position, good)
    twice = np.zeros(len(left), bool)
    twice[rank] = True
    reason = "a second time for this user and position; remove one of the rows"
    if len(rank):
        refuse(twice, spec.rank, reason)
    twice[again] = True
    refuse(twice, item, reason)
    return np.flatnonzero(left)


def _repeated(
    entries: _Entries, position: np.ndarray, good: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the places whose rank, and those whose item, a kept entry of their ranking has.

    Which of two is kept hangs on what was kept before them, so rankings in which something repeats
    are gone through one by one; the others are seen to be free of it at once.
    """
    if not len(good):
        return good, good
    wide = int(position[good].max()) + 1
    own = _codes(entries.user[good] * wide + position[good].astype(np.int64))
    rank, item = _codes(entries.rank[good]), entries.item[good]
    odd = np.zeros(own.max() + 1, bool)
    for value in (rank, item):
        code = _codes(own * (int(value.max()) + 1) + value)
        odd[own[np.bincount(code)[code] > 1]] = True
    ranks: list[int] = []
    items: list[int] = []
    taken: set[tuple[str, int, int]] = set()
    for n in np.flatnonzero(odd[own]).tolist():
        first, second = ("rank", own[n], rank[n]), ("item", own[n], item[n])
        if first in taken:
            ranks.append(n)
        elif second in taken:
            items.append(n)
        else:
            taken.update((first, second))
    return good[ranks], good[items]


def _codes(values: np.ndarray) -> np.ndarray:
    return np.unique(values, return_inverse=True)[1]


def _rows(
    spec: RankingSpec, entries: _Entries, position: np.ndarray, chosen: np.ndarray,
    data: TrainingData, k: int,
) -> pa.Table:  # fmt: skip
    chosen = chosen[np.lexsort((entries.rank[chosen], position[chosen], entries.user[chosen]))]
    user, at = entries.user[chosen], position[chosen].astype(np.int64)
    first = np.ones(len(chosen), bool)
    first[1:] = (user[1:] != user[:-1]) | (at[1:] != at[:-1])
    start = np.flatnonzero(first)
    rank = np.arange(len(chosen)) - np.repeat(start, np.diff(start, append=len(chosen))) + 1
    kept = rank <= (k or len(chosen))
    chosen, user, at, rank = chosen[kept], user[kept], at[kept], rank[kept]
    distance = entries.distance[chosen]
    if spec.confidence:
        distance = -np.log(distance)
    return pa.table({
        "user_id": pa.array(data.users.ids, pa.string()).take(user - 1),
        "position": pa.array(at),
        "rank": pa.array(rank),
        "item_id": pa.array(data.items.ids, pa.string()).take(entries.item[chosen] - 1),
        "distance": pa.array(distance.astype(np.float32)),
    })  # fmt: skip


def _text(value: Any) -> str:
    return "" if value is None else str(value)[:_SHOWN]
