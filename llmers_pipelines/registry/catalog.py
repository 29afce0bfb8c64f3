"""The catalog of a bundle: titles, and the attributes that explanations may cite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .manifest import BundleError

if TYPE_CHECKING:
    import pyarrow as pa

    from ..data.training import TrainingData


def served_catalog(
    data: TrainingData, items: pa.Table, attributes: Sequence[str] | None
) -> tuple[pa.Table, list[str], int]:
    """Return the catalog in the order of positions, its attribute columns, and the untitled."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in ("item_id", *(attributes or ())):
        if name not in items.column_names:
            raise BundleError(f"items table lacks the column {name!r}: {items.column_names}")
    ids = pa.array(data.items.ids, pa.string())
    keys = items["item_id"].cast(pa.string()).combine_chunks()
    row = pc.index_in(ids, value_set=keys)
    names = list(attributes) if attributes is not None else _repeating(items)
    columns: dict[str, Any] = {"item_id": ids}
    if "title" in items.column_names:
        columns["title"] = items["title"].combine_chunks().take(row).cast(pa.string())
    else:
        columns["title"] = pa.nulls(len(ids), pa.string())
    for name in names:
        columns[name] = _lists(items[name].combine_chunks().take(row))
    return pa.table(columns), names, columns["title"].null_count


def _repeating(items: pa.Table) -> list[str]:
    """Names of text columns that explain something: short values that several items share."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = []
    for field in items.schema:
        if field.name in ("item_id", "title"):
            continue
        values = items[field.name].combine_chunks()
        if pa.types.is_list(field.type) or pa.types.is_large_list(field.type):
            values = values.flatten()
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            continue
        values = values.drop_null()
        short = len(values) > 0 and pc.mean(pc.utf8_length(values)).as_py() <= 60
        if short and pc.count_distinct(values).as_py() <= 0.8 * len(values):
            names.append(field.name)
    return names


def _lists(values: pa.Array) -> pa.Array:
    """Return list<string>: a text with ``|`` is a list of its parts; empty parts are left out."""
    import pyarrow as pa

    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        rows = values.cast(pa.list_(pa.string())).to_pylist()
    else:
        rows = [None if v is None else v.split("|") for v in values.cast(pa.string()).to_pylist()]
    return pa.array(
        [None if r is None else [v.strip() for v in r if v and v.strip()] for r in rows],
        pa.list_(pa.string()),
    )
