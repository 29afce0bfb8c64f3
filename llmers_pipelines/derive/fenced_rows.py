"""Rows of a click log as fenced texts: what CTRL and FLIP show a language model of a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ..data.fences import fenced, one_line
from ..data.spans import history_spans
from ..data.training import TRAIN, Field
from ..prompts.titled import titles_by_position
from .derivation import DerivedTable, Given


@dataclass(frozen=True)
class FencedRows(DerivedTable):
    """``example_id, row, user_id, item_id, fields, parts, text, shown``: one per training row.

    ``text`` tells the user's id, the user's fields, the title, the item's fields and the titles of
    the ``last`` items that were liked strictly before the row, each value in a fence; ``fields``
    names them in that order: ``user``, ``user.<field>``, ``item``, ``item.<field>``, ``history``,
    as a network of fields does; ``parts`` holds what the value of each lists (the titles of a
    history, the values of a field), of a single value that value alone. A field without a value has
    no clause. ``row`` is the row of the log. The label and the rating of the row itself are never
    told; those of earlier training rows decide what was liked. Sources: the splits and the item
    table. At most ``samples`` rows are drawn (0 = all).
    """

    revision: ClassVar[int] = 2  # parts
    rows: ClassVar[str] = "examples"

    last: int = 5
    samples: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.last < 0 or self.samples < 0:
            raise ValueError(f"FencedRows(last={self.last}, samples={self.samples}): at least 0")

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        data = given.log
        titles = titles_by_position(given.table("item_id"), data)
        liked = None if data.label is None else data.label > 0
        seen, start, end = history_spans(data, liked)
        rows = np.flatnonzero(data.split == TRAIN)
        if self.samples and self.samples < len(rows):
            rng = np.random.default_rng([self.seed, 29])
            rows = np.sort(rng.choice(rows, self.samples, replace=False))
        users = [_clauses("user", data.user_fields, u) for u in range(data.n_users + 1)]
        films = [_clauses("item", data.item_fields, i) for i in range(data.n_items + 1)]
        made = []
        for row in rows.tolist():
            user, item = int(data.user[row]), int(data.item[row])
            own = data.items.ids[item - 1]
            about = [("user", "user", [data.users.ids[user - 1]]), *users[user]]
            about += [("item", "title", [titles[item]])] if titles[item] else []
            about += films[item]
            before = data.item[seen[max(start[row], end[row] - self.last) : end[row]]].tolist()
            before = [i for i in before if titles[i]] if self.last else []
            if before:
                about.append(("history", "liked before", [titles[i] for i in before]))
            made.append({
                "example_id": f"row_{row:09d}", "row": row,
                "user_id": data.users.ids[user - 1], "item_id": own,
                "fields": [field for field, _, _ in about],
                "parts": [[one_line(v) for v in listed] for _, _, listed in about],
                "text": fenced([(name, ", ".join(listed)) for _, name, listed in about]),
                "shown": [*(data.items.ids[i - 1] for i in before), own],
            })  # fmt: skip
        untitled = sum(not titles[i] for i in np.unique(data.item[rows]))
        return pa.Table.from_pylist(made, schema=SCHEMA), {
            "rows": len(made), "items_without_title": untitled,
        }  # fmt: skip


def _clauses(
    side: str, fields: Mapping[str, Field], entity: int
) -> list[tuple[str, str, list[str]]]:
    """Return (field, its name in words, values) of each filled field of one entity."""
    out = []
    for name in sorted(fields):
        codes = np.atleast_1d(fields[name].codes[entity])
        listed = [fields[name].vocabulary[c - 1] for c in codes.tolist() if c > 0]
        if ", ".join(listed):
            out.append((f"{side}.{name}", name.replace("_", " "), listed))
    return out


SCHEMA = pa.schema([
    ("example_id", pa.string()), ("row", pa.int64()), ("user_id", pa.string()),
    ("item_id", pa.string()), ("fields", pa.list_(pa.string())),
    ("parts", pa.list_(pa.list_(pa.string()))), ("text", pa.string()),
    ("shown", pa.list_(pa.string())),
])  # fmt: skip
