"""From suggested titles to items: the edits of a log, each with how it was grounded (LLM4DSR)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ..data.training import TrainingData
from ..data.vectors import VectorTable
from ..prompts.titled import titles_by_position
from .derivation import DerivedTable, Given

EXACT, NEAREST = "exact", "nearest"


@dataclass(frozen=True)
class SequenceEdits(DerivedTable):
    """``row_id, user_id, position, op, old_id, new_id, logp, grounding, distance``.

    A suggestion is the item of that title (upper and lower case alike; of several the earliest of
    the catalog), else the item whose vector is nearest in L2, ``distance`` at most
    ``max_distance`` (0 = any). A suggestion that is the item at fault, or that nothing answered,
    makes no edit. Sources: the answers, the positions, the items, vectors of the items' titles and
    of the answers, the splits. Items without a vector of their own are nobody's nearest.
    """

    rows: ClassVar[str] = "positions"

    max_distance: float = 0.0

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        data = given.log
        noisy = given.table("logp")
        answers = given.table("request_key")
        items = next(t for t in given.tables if "item_id" in t.column_names and t is not noisy)
        vectors = {s.entity: s for s in given.sources if isinstance(s, VectorTable)}
        titles = titles_by_position(items, data)
        known: dict[str, int] = {}
        for position, title in enumerate(titles):
            if title:
                known.setdefault(title.casefold(), position)
        said = dict(zip(answers["row_id"].to_pylist(), answers["text"].to_pylist(), strict=True))
        nearest = _Nearest(vectors["item"], vectors["row"], data)
        rows: list[dict[str, Any]] = []
        counts = {"no_answer": 0, "same_item": 0, "too_far": 0, EXACT: 0, NEAREST: 0}
        for row in noisy.to_pylist():
            title = said.get(row["row_id"])
            if not title:
                counts["no_answer"] += 1
                continue
            new, how, distance = known.get(title.replace("'", "’").casefold(), 0), EXACT, 0.0
            if not new:
                (new, distance), how = nearest(row["row_id"]), NEAREST
            if not new or (self.max_distance and distance > self.max_distance):
                counts["too_far" if new else "no_answer"] += 1
                continue
            if data.items.ids[new - 1] == row["item_id"]:
                counts["same_item"] += 1
                continue
            counts[how] += 1
            rows.append({
                "row_id": row["row_id"], "user_id": row["user_id"], "position": row["position"],
                "op": "replace", "old_id": row["item_id"], "new_id": data.items.ids[new - 1],
                "logp": row["logp"], "grounding": how, "distance": distance,
            })  # fmt: skip
        return pa.Table.from_pylist(rows, schema=SCHEMA), {"edits": len(rows), **counts}


SCHEMA = pa.schema([
    ("row_id", pa.string()), ("user_id", pa.string()), ("position", pa.int64()),
    ("op", pa.string()), ("old_id", pa.string()), ("new_id", pa.string()),
    ("logp", pa.float64()), ("grounding", pa.string()), ("distance", pa.float64()),
])  # fmt: skip


class _Nearest:
    """The item of the log whose vector is nearest to that of a row's answer."""

    def __init__(self, items: VectorTable, rows: VectorTable, data: TrainingData) -> None:
        self.place = data.items.index(items.ids)
        real = np.asarray(items.mask) & (self.place > 0)
        self.place, self.items = self.place[real], np.asarray(items.vectors, np.float64)[real]
        self.rows, self.at = rows, {name: n for n, name in enumerate(rows.ids)}

    def __call__(self, row_id: str) -> tuple[int, float]:
        """Return (position in the catalog, L2 distance); 0 where the answer has no vector."""
        n = self.at.get(row_id)
        if n is None or not self.rows.mask[n] or not len(self.items):
            return 0, 0.0
        own = np.asarray(self.rows.vectors[n], np.float64)
        distance = np.linalg.norm(self.items - own, axis=1)
        best = int(distance.argmin())
        return int(self.place[best]), float(distance[best])
