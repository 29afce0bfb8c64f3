"""Counts, density, time range, text coverage, head and tail of a data set."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .catalog import Catalog
from .description import Description
from .schema import ITEM_ID, POSITION, RATING, TIMESTAMP, TITLE, USER_ID


def describe_catalog(catalog: Catalog, description: Description) -> dict[str, Any]:
    """Return plain facts about the valid tables of ``catalog``."""
    log = catalog.interactions
    per_item = _counts(log[ITEM_ID])
    per_user = _counts(log[USER_ID])
    density = len(log) / (len(per_item) * len(per_user))
    return {
        "users": len(per_user),
        "items": len(catalog.items),
        "items_in_interactions": len(per_item),
        "interactions": len(log),
        "density": round(density, 8),
        "repeated_pairs": len(log) - _pairs(log),
        "per_user": _spread(per_user),
        "per_item": _spread(per_item),
        "head": _head(per_item, len(catalog.items)),
        "time": _time_range(log, str(catalog.info["clock"])),
        "ratings": _ratings(log),
        "text_coverage": _coverage(catalog.items, description),
        "extras": {name: len(table) for name, table in catalog.extras.items()},
        "quarantined": catalog.info["quarantined"],
        "users_without_attributes": catalog.info["users_without_attributes"],
        "source_version": catalog.source_version,
    }


def _counts(column: pa.ChunkedArray) -> np.ndarray:
    """Occurrences of each distinct value, largest first."""
    counts = pc.struct_field(pc.value_counts(column), "counts")
    return np.sort(np.asarray(counts))[::-1]


def _pairs(log: pa.Table) -> int:
    return log.group_by([USER_ID, ITEM_ID]).aggregate([]).num_rows


def _spread(counts: np.ndarray) -> dict[str, float]:
    return {
        "least": int(counts[-1]), "median": float(np.median(counts)),
        "mean": round(float(counts.mean()), 2), "most": int(counts[0]),
    }  # fmt: skip


def _head(per_item: np.ndarray, n_items: int) -> dict[str, float]:
    """How concentrated the log is: share of rows on the top 20% of items, Gini with zeros."""
    x = np.zeros(n_items)
    x[: len(per_item)] = per_item
    x.sort()
    rank = np.arange(1, n_items + 1)
    gini = float(((2 * rank - n_items - 1) * x).sum() / (n_items * x.sum()))
    top = max(1, round(0.2 * n_items))
    return {
        "items_in_head": top,
        "share_of_head": round(float(x[-top:].sum() / x.sum()), 6),
        "items_without_interaction": int((x == 0).sum()),
        "gini": round(gini, 6),
    }


def _time_range(log: pa.Table, clock: str) -> dict[str, Any]:
    column = TIMESTAMP if TIMESTAMP in log.column_names else POSITION
    if column not in log.column_names:
        return {"clock": "none"}
    ends = pc.min_max(log[column]).as_py()
    if clock != "seconds":
        return {"clock": clock, "first": ends["min"], "last": ends["max"]}
    first, last = (datetime.fromtimestamp(ends[k], UTC).isoformat() for k in ("min", "max"))
    ties = len(log) - log.group_by([USER_ID, TIMESTAMP]).aggregate([]).num_rows
    return {
        "clock": clock, "first": first, "last": last,
        "rows_with_a_tie": round(ties / len(log), 6),
    }  # fmt: skip


def _ratings(log: pa.Table) -> dict[str, Any]:
    if RATING not in log.column_names:
        return {}
    counted = pc.value_counts(log[RATING].drop_null()).to_pylist()
    mean = pc.mean(log[RATING]).as_py()
    rows = sorted((c["values"], c["counts"]) for c in counted)
    shown = {f"{v:g}": n for v, n in rows} if len(rows) <= 20 else {}
    return {"mean": None if mean is None else round(mean, 4), "counts": shown}


def _coverage(items: pa.Table, description: Description) -> dict[str, float]:
    """Share of items whose declared field, or title, has a value."""
    names = dict.fromkeys([TITLE, *description.items.fields])
    shares = {}
    for name in names:
        column = items[name]
        there = pc.is_valid(column)
        if pa.types.is_string(column.type):
            there = pc.and_(there, pc.fill_null(pc.not_equal(column, ""), False))
        shares[name] = round(pc.mean(pc.cast(there, pa.int8())).as_py(), 6)
    return shares
