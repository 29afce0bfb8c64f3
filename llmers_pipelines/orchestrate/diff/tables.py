"""Rows added, removed and changed between two tables; DuckDB joins them by their key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from .form import Change, RowDiff

EXAMPLES = 5
# What may identify a row, tried in this order; the first that is unique in both versions stands.
_KEYS = (
    ("item_id",), ("user_id",), ("user_id", "item_id"), ("user_id", "rank"), ("item_id", "rank"),
    ("user_id", "position", "rank"), ("user_id", "item_id", "timestamp"),
    ("user_id", "item_id", "time"), ("row",), ("method", "metric", "slice"),
)  # fmt: skip


def row_diff(before: pa.Table, after: pa.Table, titles: Mapping[str, str]) -> RowDiff:
    """Compare two tables. Values of columns whose type changed are compared as text."""
    import duckdb

    old, new = before.schema, after.schema
    base = duckdb.connect(":memory:")
    try:
        base.execute("set threads = 1")
        base.register("old", before)
        base.register("new", after)
        both = [n for n in new.names if n in old.names]
        counts = [_one(base, f"select count(*) from {t}") for t in ("old", "new")]
        key = next((k for k in _KEYS if set(k) <= set(both) and _unique(base, k)), ())
        told: dict[str, Any] = {
            "key": key, "before": counts[0], "after": counts[1],
            "columns_added": tuple(n for n in new.names if n not in old.names),
            "columns_removed": tuple(n for n in old.names if n not in new.names),
        }  # fmt: skip
        if not key:
            return _whole_rows(base, both, told)
        retyped = {n for n in both if old.field(n).type != new.field(n).type}
        return _keyed(base, key, [n for n in both if n not in key], retyped, titles, told)
    finally:
        base.close()


def _keyed(
    base: Any, key: tuple[str, ...], values: list[str], retyped: set[str],
    titles: Mapping[str, str], told: dict[str, Any],
) -> RowDiff:  # fmt: skip
    join = " and ".join(f"o.{_name(k)} is not distinct from n.{_name(k)}" for k in key)
    order = ", ".join(f"{{}}.{_name(k)}" for k in key)
    differs = {n: _differs(n, n in retyped) for n in values}
    any_differs = " or ".join(differs.values()) or "false"
    sums = "".join(f", count(*) filter (where {d})" for d in differs.values())
    row = base.execute(
        f"select count(*), count(*) filter (where {any_differs}){sums} from old o join new n "
        f"on {join}"
    ).fetchone()
    matched, changed, by_column = row[0], row[1], dict(zip(values, row[2:], strict=True))
    examples = {
        side: _dicts(base.execute(
            f"select {one}.* from {table} {one} anti join {other_table} {other} on {join} "
            f"order by {order.replace('{}', one)} limit {EXAMPLES}"))
        for side, one, table, other, other_table in (
            ("added", "n", "new", "o", "old"), ("removed", "o", "old", "n", "new"))
    }  # fmt: skip
    pairs = ", ".join(f"o.{_name(n)}, n.{_name(n)}, {differs[n]}" for n in values)
    changes = []
    if changed:
        keys = ", ".join(f"n.{_name(k)}" for k in key)
        found = base.execute(
            f"select {keys}, {pairs} from old o join new n on {join} where {any_differs} "
            f"order by {order.replace('{}', 'n')} limit {EXAMPLES}"
        ).fetchall()
        changes = [_change(key, values, cells, titles) for cells in found]
    return RowDiff(
        **told, added=told["after"] - matched, removed=told["before"] - matched, changed=changed,
        same=matched - changed, by_column={n: c for n, c in by_column.items() if c},
        added_examples=examples["added"], removed_examples=examples["removed"],
        changed_examples=tuple(changes),
    )  # fmt: skip


def _change(
    key: tuple[str, ...], values: list[str], cells: tuple[Any, ...], titles: Mapping[str, str]
) -> Change:
    named = dict(zip(key, cells, strict=False))
    rest = cells[len(key) :]
    columns = {n: (rest[3 * i], rest[3 * i + 1]) for i, n in enumerate(values) if rest[3 * i + 2]}
    return Change(named, titles.get(str(named.get("item_id", ""))), columns)


def _whole_rows(base: Any, both: list[str], told: dict[str, Any]) -> RowDiff:
    """Compare as sets of rows with repetitions, over the columns that both versions have."""
    names = ", ".join(map(_name, both))
    parts = {}
    for side, one, other in (("added", "new", "old"), ("removed", "old", "new")):
        query = f"select {names} from {one} except all select {names} from {other}"
        parts[side] = _one(base, f"select count(*) from ({query})")
        parts[f"{side}_examples"] = _dicts(base.execute(f"{query} limit {EXAMPLES}"))
    return RowDiff(**told, **parts, changed=0, same=told["after"] - parts["added"])


def _unique(base: Any, key: tuple[str, ...]) -> bool:
    names = ", ".join(map(_name, key))
    return all(
        _one(base, f"select count(*) = (select count(*) from (select distinct {names} from {t})) "
                   f"from {t}")
        for t in ("old", "new")
    )  # fmt: skip


def _differs(name: str, retyped: bool) -> str:
    one, two = f"o.{_name(name)}", f"n.{_name(name)}"
    if retyped:
        one, two = f"cast({one} as varchar)", f"cast({two} as varchar)"
    return f"({one} is distinct from {two})"


def _one(base: Any, query: str) -> Any:
    return base.execute(query).fetchone()[0]


def _dicts(found: Any) -> tuple[dict[str, Any], ...]:
    names = [d[0] for d in found.description]
    return tuple(dict(zip(names, row, strict=True)) for row in found.fetchall())


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'

