"""The categories of items that lists are described by: genres, or whatever a data set declares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..data.training import TrainingData
from ..plan import Table, Train, walk
from .context import StepContext

MOST = 500  # values of a field; with more of them two items of a list hardly ever agree


@dataclass(frozen=True)
class Kinds:
    """The values of one field: ``membership`` bool[N + 1, C]; an item may have several or none."""

    field: str
    membership: np.ndarray


def kinds_of(model: Train, data: TrainingData, ctx: StepContext) -> Kinds | None:
    """Return the first declared category field with several values per item, else the first.

    None where no category of at most ``MOST`` values is declared, and for tasks without lists.
    """
    names = [name for name, kind in ctx.field_kinds.items() if kind == "category"]
    if not names or data.label is not None or data.task == "rating":
        return None
    items = next((n for n in walk([model]) if isinstance(n, Table) and n.table == "items"), None)
    table = ctx.load(items) if items is not None else None
    if table is None:
        return None
    place = data.items.index(table["item_id"].to_pylist())
    found = [_read(table[name], place, data) for name in names if name in table.column_names]
    fit = [
        (name, rows, codes, count)
        for name, (rows, codes, count) in zip(
            [n for n in names if n in table.column_names], found, strict=True
        )
        if 2 <= count <= MOST
    ]
    if not fit:
        return None
    several = [f for f in fit if len(np.unique(f[1])) < len(f[1])]
    name, rows, codes, count = (several or fit)[0]
    membership = np.zeros((data.n_items + 1, count), bool)
    membership[rows, codes] = True
    return Kinds(name, membership)


def _read(
    column: pa.ChunkedArray, place: np.ndarray, data: TrainingData
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return (item position, value's number) of each pair once, and how many values there are."""
    column = column.combine_chunks()
    if not pa.types.is_list(column.type):
        column = pc.split_pattern(pc.cast(column, pa.string()), "|")
    words = pc.utf8_trim_whitespace(pc.cast(pc.list_flatten(column), pa.string()))
    rows = place[pc.list_parent_indices(column).to_numpy()]
    coded = pc.dictionary_encode(words)
    codes = pc.fill_null(coded.indices, -1).to_numpy().astype(np.int64)
    said = pc.fill_null(pc.utf8_length(words), 0).to_numpy() > 0
    keep = (rows > 0) & (codes >= 0) & said
    values, codes = np.unique(codes[keep], return_inverse=True)
    pairs = np.unique(rows[keep] * max(len(values), 1) + codes)
    return *np.divmod(pairs, max(len(values), 1)), len(values)
