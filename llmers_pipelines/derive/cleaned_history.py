"""Histories with their edits applied, as a table that a batch job refreshes (LLM4DSR)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ..data.edits import is_edits, with_edits
from ..data.training import TRAIN
from .derivation import DerivedTable, Given


@dataclass(frozen=True)
class CleanedHistory(DerivedTable):
    """``user_id, item_ids, edited``: each user's training rows, oldest first, after the edits.

    ``edited`` counts the rows that hold another item than the log. For those who want to serve
    cleaned histories: live rows that came after the edits are not in it, so whoever reads it
    appends them. Sources: the edits and the splits. A method does not read it: its own log is
    edited by ``EditedHistory``.
    """

    rows: ClassVar[str] = "entities"

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        data = given.log
        edits = next((t for t in given.tables if is_edits(t)), None)
        if edits is None:
            raise ValueError("CleanedHistory needs edits: Derive(CleanedHistory(), edits, splits)")
        clean = with_edits(data, edits, "CleanedHistory")
        rows = np.flatnonzero(data.split == TRAIN)
        user, item = data.user[rows], clean.item[rows]
        users, start = np.unique(user, return_index=True)
        ends = np.append(start, len(rows)).astype(np.int32)
        changed = np.add.reduceat((item != data.item[rows]).astype(np.int64), start) if len(
            rows
        ) else np.zeros(0, np.int64)  # fmt: skip
        names = pa.array(data.items.ids, pa.string()).take(pa.array(item - 1))
        table = pa.table({
            "user_id": pa.array(data.users.ids, pa.string()).take(pa.array(users - 1)),
            "item_ids": pa.ListArray.from_arrays(pa.array(ends), names),
            "edited": pa.array(changed, pa.int64()),
        })  # fmt: skip
        return table, {"users": len(users), "users_edited": int((changed > 0).sum()),
                       "rows_edited": int(changed.sum())}  # fmt: skip
