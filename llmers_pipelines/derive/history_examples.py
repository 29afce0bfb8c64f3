"""Training positions as examples: a history and the item that follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ..data.training import HISTORY, TRAIN
from .derivation import DerivedTable, Given


@dataclass(frozen=True)
class HistoryExamples(DerivedTable):
    """Examples ``history`` (item ids, oldest first), ``target``, ``user_id`` and ``shown``.

    One for each training row that something precedes, or for the ``newest`` such rows of each user.
    The history is the ``most`` known rows before it; ``shown`` is history and target. Held-out rows
    are in neither.
    """

    rows: ClassVar[str] = "examples"

    most: int = 30
    newest: int = 0  # 0 = all

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        data = given.log
        names = np.array(data.items.ids, object)
        made = []
        for user in range(1, data.n_users + 1):
            own = slice(data.user_start[user], data.user_start[user + 1])
            split = data.split[own]
            known = (split == TRAIN) | (split == HISTORY)
            item, target = data.item[own][known], split[known] == TRAIN
            places = np.flatnonzero(target)
            places = places[places > 0][-self.newest or None :]
            for p in places:
                row = [str(i) for i in names[item[max(0, p - self.most) : p + 1] - 1]]
                owner = data.users.ids[user - 1]
                made.append((f"{owner}@{p}", owner, row[:-1], row[-1], row))
        listed = pa.list_(pa.string())
        kinds = {"example_id": pa.string(), "user_id": pa.string(), "history": listed,
                 "target": pa.string(), "shown": listed}  # fmt: skip
        table = pa.table({
            name: pa.array([m[n] for m in made], kind)
            for n, (name, kind) in enumerate(kinds.items())
        })  # fmt: skip
        return table, {"examples": len(made)}
