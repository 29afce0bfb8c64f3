"""Labelled rows with the behaviours before them: examples for deep layers over clicks (BAHE)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ..data.training import HISTORY, TRAIN, TrainingData
from .derivation import DerivedTable, Given


def behaviours(data: TrainingData) -> np.ndarray:
    """Return bool[R]: rows that are told as behaviours: known ones, of label 1 where labels are.

    Where a cut is declared these are the rows before it, so that no row that is a label is told. On
    a log with labels the steps that tell users by them refuse a split without a cut.
    """
    cut = (data.split == HISTORY).any()
    keep = data.split == (HISTORY if cut else TRAIN)
    return keep if data.label is None else keep & (data.label > 0)


@dataclass(frozen=True)
class ClickSequences(DerivedTable):
    """``example_id, user_id, history, item_id, label, shown``: one row per training row.

    ``history`` are the newest ``last`` behaviours of the user that lie before the row, oldest
    first; a row without any is left out. At most ``samples`` rows are drawn (0 = all).
    """

    rows: ClassVar[str] = "examples"
    tells_users: ClassVar[bool] = True  # the vectors that follow are; told before a model is tuned

    last: int = 50
    samples: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.last < 1 or self.samples < 0:
            raise ValueError(
                f"ClickSequences(last={self.last}, samples={self.samples}): at least 1 behaviour, "
                "samples at least 0"
            )

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        data = given.log
        if data.label is None:
            raise ValueError("ClickSequences needs a log with labels (a click task)")
        told = np.flatnonzero(behaviours(data))
        rows = np.flatnonzero(data.split == TRAIN)
        first = np.searchsorted(data.user[told], np.arange(data.n_users + 2))
        upto = np.searchsorted(told, rows)  # rows of a user are in order of time
        start = np.maximum(first[data.user[rows]], upto - self.last)
        able = np.flatnonzero(start < upto)
        if self.samples and self.samples < len(able):
            rng = np.random.default_rng([self.seed, 23])
            able = np.sort(rng.choice(able, self.samples, replace=False))
        ids = data.items.ids
        out = []
        for n in able:
            row = int(rows[n])
            history = [ids[data.item[t] - 1] for t in told[start[n] : upto[n]]]
            out.append({
                "example_id": f"row_{row:09d}", "user_id": data.users.ids[data.user[row] - 1],
                "history": history, "item_id": ids[data.item[row] - 1],
                "label": float(data.label[row]), "shown": [*history, ids[data.item[row] - 1]],
            })  # fmt: skip
        return pa.Table.from_pylist(out, schema=SCHEMA), {
            "rows": len(rows), "without_history": int((start >= upto).sum()),
        }  # fmt: skip


SCHEMA = pa.schema([
    ("example_id", pa.string()), ("user_id", pa.string()), ("history", pa.list_(pa.string())),
    ("item_id", pa.string()), ("label", pa.float64()), ("shown", pa.list_(pa.string())),
])  # fmt: skip
