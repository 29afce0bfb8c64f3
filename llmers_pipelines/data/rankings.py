"""Reading rankings from a file: a row that cannot be used is a value with its place and reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from .description import Description, Source
from .ranking_entries import (
    Entries,
    Refusals,
    listed_entries,
    long_entries,
    whole,
    whole_records,
)
from .ranking_spec import RankingSpec
from .schema import DataError
from .sources import RawTable, read_source
from .strict_toml import near
from .training import TrainingData

_LARGEST = float(np.finfo(np.float32).max)  # distances are stored so
_NO_WHOLE = "not a whole number from 1; write one"
_TWICE = "a second time for this user and position; remove one of the rows"


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
    refused = Refusals()
    for reject in raw.rejects:  # first, whatever their place
        refused.add([(-1, 0)], [reject.row], "", [reject.value], reject.reason)
    entries = (listed_entries if spec.items else long_entries)(spec, raw, data, refused)
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
    for column in (spec.user, "" if spec.items else spec.item):
        if column in there and pa.types.is_nested(raw.table[column].type):
            raise DataError(
                f"{raw.file}: column {column!r} holds {raw.table[column].type}, not ids; for one "
                f"ranking per row set items = \"<column of lists>\" in [rankings.{spec.name}]"
            )
    for column in (*needed, spec.position, spec.distance, spec.confidence):
        if column and column not in there:
            raise DataError(
                f"{raw.file}: no column {column!r}{near(column, there) or ';'} found "
                f"{', '.join(there)}; name the columns in [rankings.{spec.name}]"
            )


def _usable(
    spec: RankingSpec, raw: RawTable, entries: Entries, position: np.ndarray,
    newest_of: np.ndarray, refused: Refusals,
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
        refuse(~whole(entries.rank), spec.rank, _NO_WHOLE)
    told = entries.distance
    if spec.distance:
        refuse(~((told >= 0) & (told <= _LARGEST)), spec.distance,
               "not a number from 0; write the distance of the item")  # fmt: skip
    elif spec.confidence:
        refuse(~((told > 0) & (told <= 1)), spec.confidence,
               "not above 0 and at most 1; write a confidence")  # fmt: skip
    if spec.items:
        _one_list_each(spec, raw, entries, position, left, refused)
    rank, again = _repeated(entries, position, np.flatnonzero(left))
    for column, found in ((spec.rank, rank), (item, again)):
        twice = np.zeros(len(left), bool)
        twice[found] = True
        if twice.any():  # ranks of a list do not repeat, and have no column
            refuse(twice, column, _TWICE)
    return np.flatnonzero(left)


def _one_list_each(
    spec: RankingSpec, raw: RawTable, entries: Entries, position: np.ndarray, left: np.ndarray,
    refused: Refusals,
) -> None:  # fmt: skip
    """Leave the first list of each user and position; the others are refused as a whole."""
    good = np.flatnonzero(left)
    own = _ranking_of(entries, position, good)
    first = np.full(len(good), len(raw.rows))
    np.minimum.at(first, own, entries.at[good])
    second = good[entries.at[good] != first[own]]
    left[second] = False
    records = np.unique(entries.at[second])
    shown = raw.table[spec.items].take(records).to_pylist()
    refused.add(whole_records(records), raw.rows[records].tolist(), spec.items, shown, _TWICE)


def _repeated(
    entries: Entries, position: np.ndarray, good: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the places whose rank, and those whose item, a kept entry of their ranking has.

    Which of two is kept hangs on what was kept before them, so rankings in which something repeats
    are gone through one by one; the others are seen to be free of it at once.
    """
    if not len(good):
        return good, good
    own = _ranking_of(entries, position, good)
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


def _ranking_of(entries: Entries, position: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Return a number from 0 per entry of ``good``, equal for one user and position."""
    wide = int(np.max(position[good], initial=0)) + 1
    return _codes(entries.user[good] * wide + position[good].astype(np.int64))


def _codes(values: np.ndarray) -> np.ndarray:
    return np.unique(values, return_inverse=True)[1]


def _rows(
    spec: RankingSpec, entries: Entries, position: np.ndarray, chosen: np.ndarray,
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
