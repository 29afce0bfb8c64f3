"""Reading rankings from a file: a row that cannot be used is a value with its place and reason."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .description import Description, Source
from .ids import ids_as_text
from .ranking_spec import RankingSpec
from .schema import DataError
from .sources import RawTable, read_source
from .strict_toml import near
from .training import TrainingData

_SHOWN = 80  # characters of a value
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
class _Entry:
    """One ranked item as the file has it."""

    row: int
    user: str | None
    position: Any
    rank: Any
    item: str | None
    distance: Any


class _Fault(ValueError):
    def __init__(self, column: str, value: Any, reason: str) -> None:
        super().__init__(reason)
        self.column, self.value, self.reason = column, value, reason


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
    refused = [(r.row, "", r.value, r.reason) for r in raw.rejects]
    lists: dict[tuple[int, int], list[tuple[int, int, float]]] = {}
    taken: set[tuple[int, int, int, str]] = set()
    entries = _listed(spec, raw, refused) if spec.items else _long(spec, raw)
    for entry in entries:
        try:
            user, position, rank, item, distance = _checked(entry, spec, data, last)
            for what, value in ((spec.rank, rank), (spec.item, item)):
                if (user, position, value, what) in taken:
                    raise _Fault(
                        what,
                        value if what == spec.rank else entry.item,
                        "a second time for this user and position; remove one of the rows",
                    )
            taken.update({(user, position, rank, spec.rank), (user, position, item, spec.item)})
        except _Fault as fault:
            refused.append((entry.row, fault.column, _text(fault.value), fault.reason))
            continue
        if not newest or position > last[user] - newest:
            lists.setdefault((user, position), []).append((rank, item, distance))
    table = _refused(refused)
    if not lists:
        first = "; ".join(
            f"row {row}, column {column!r}, value {value!r}: {reason}"
            for row, column, value, reason in refused[:3]
        )
        raise DataError(f"{raw.file}: holds no usable ranking: {first or 'it has no rows'}")
    return ReadRankings(_rows(lists, data, k), table, raw.table.num_rows + len(raw.rejects))


def _check_columns(spec: RankingSpec, raw: RawTable) -> None:
    there = raw.table.column_names
    needed = [spec.user, *([spec.items] if spec.items else [spec.rank, spec.item])]
    for column in (*needed, spec.position, spec.distance, spec.confidence):
        if column and column not in there:
            raise DataError(
                f"{raw.file}: no column {column!r}{near(column, there) or ';'} found "
                f"{', '.join(there)}; name the columns in [rankings.{spec.name}]"
            )


def _column(raw: RawTable, name: str) -> list[Any]:
    return raw.table[name].to_pylist() if name else [None] * raw.table.num_rows


def _long(spec: RankingSpec, raw: RawTable) -> Iterator[_Entry]:
    user, _ = ids_as_text(raw.table[spec.user], spec.ids)
    item, _ = ids_as_text(raw.table[spec.item], spec.ids)
    columns = [raw.rows.tolist(), user.to_pylist(), _column(raw, spec.position),
               _column(raw, spec.rank), item.to_pylist(),
               _column(raw, spec.distance or spec.confidence)]  # fmt: skip
    for values in zip(*columns, strict=True):
        yield _Entry(*values)


def _listed(spec: RankingSpec, raw: RawTable, refused: list[Any]) -> Iterator[_Entry]:
    """Yield the entries of one ranking per row; a list that does not fit is refused as a whole."""
    user, _ = ids_as_text(raw.table[spec.user], spec.ids)
    told = spec.distance or spec.confidence
    for row, who, position, items, distances in zip(
        raw.rows.tolist(), user.to_pylist(), _column(raw, spec.position),
        _column(raw, spec.items), _column(raw, told), strict=True,
    ):  # fmt: skip
        names = _parts(items, spec.separator)
        values = _parts(distances, spec.separator) if told else [None] * len(names)
        if not names:
            refused.append((row, spec.items, _text(items), "no items; list them best first"))
        elif len(values) != len(names):
            why = f"{len(values)} values for {len(names)} items; give one for each"
            refused.append((row, told, _text(distances), why))
        else:
            ids = ids_as_text(pa.array(names), spec.ids)[0].to_pylist()
            for rank, (item, value) in enumerate(zip(ids, values, strict=True), start=1):
                yield _Entry(row, who, position, rank, item, value)


def _parts(value: Any, separator: str) -> list[Any]:
    if isinstance(value, str):
        return [v.strip() for v in value.split(separator)] if value.strip() else []
    return list(value) if isinstance(value, (list, tuple)) else []


def _checked(
    entry: _Entry, spec: RankingSpec, data: TrainingData, last: np.ndarray
) -> tuple[int, int, int, int, float]:
    """Return (user, position, rank, item, distance); raise ``_Fault`` for the first bad value."""
    user = int(data.users.index([entry.user])[0]) if entry.user is not None else 0
    if not user:
        raise _Fault(spec.user, entry.user, "no user of the log; correct the id")
    item = int(data.items.index([entry.item])[0]) if entry.item is not None else 0
    if not item:
        raise _Fault(spec.items or spec.item, entry.item, "no item of the catalog; correct the id")
    newest = int(last[user])
    if not newest:
        raise _Fault(spec.user, entry.user, "the user has no training position to teach")
    position = newest
    if spec.position and entry.position not in (None, ""):
        position = _whole(entry.position, spec.position)
    if position > newest:
        raise _Fault(
            spec.position, entry.position,
            f"the user's newest training position is {newest}: a ranking from more rows would have "
            "seen held-out ones; export it from training rows",
        )  # fmt: skip
    rank = _whole(entry.rank, spec.rank)
    return user, position, rank, item, _distance(entry.distance, spec)


def _whole(value: Any, column: str) -> int:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (number >= 1 and number == int(number)):
        raise _Fault(column, value, "not a whole number from 1; write one")
    return int(number)


def _distance(value: Any, spec: RankingSpec) -> float:
    if not (spec.distance or spec.confidence):
        return 0.0
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if spec.distance:
        if 0 <= number < math.inf:
            return number
        raise _Fault(spec.distance, value, "not a number from 0; write the distance of the item")
    if 0 < number <= 1:
        return -math.log(number)
    raise _Fault(spec.confidence, value, "not above 0 and at most 1; write a confidence")


def _rows(
    lists: dict[tuple[int, int], list[tuple[int, int, float]]], data: TrainingData, k: int
) -> pa.Table:
    out: list[tuple[str, int, int, str, float]] = []
    for (user, position), ranking in sorted(lists.items()):
        best = sorted(ranking)[: k or None]
        for rank, (_, item, distance) in enumerate(best, start=1):
            out.append((data.users.ids[user - 1], position, rank, data.items.ids[item - 1],
                        distance))  # fmt: skip
    user_id, position, rank, item_id, distance = zip(*out, strict=True)
    return pa.table({
        "user_id": pa.array(user_id, pa.string()), "position": pa.array(position, pa.int64()),
        "rank": pa.array(rank, pa.int64()), "item_id": pa.array(item_id, pa.string()),
        "distance": pa.array(distance, pa.float32()),
    })  # fmt: skip


def _refused(rows: list[tuple[int, str, str, str]]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ([], [], [], [])
    arrays = [pa.array(c, f.type) for c, f in zip(columns, _REFUSED, strict=True)]
    return pa.table(arrays, schema=_REFUSED)


def _text(value: Any) -> str:
    return "" if value is None else str(value)[:_SHOWN]
