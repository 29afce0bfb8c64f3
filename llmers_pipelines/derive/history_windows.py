"""Windows of users' histories as examples: every position but the first is to be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from .derivation import DerivedTable, Given, told_rows


@dataclass(frozen=True)
class HistoryWindows(DerivedTable):
    """Examples ``history`` (item ids, oldest first), ``user_id`` and ``shown`` (the same items).

    A user's told rows (training rows; where a cut is declared, those before it) are cut from the
    newest on into windows of ``most`` items and the one that follows. Neighbouring windows share an
    item, so each row that another one precedes is told exactly once. ``newest`` windows of each
    user are kept, 0 = all. Users with fewer than two rows have none.
    """

    rows: ClassVar[str] = "examples"

    most: int = 10
    newest: int = 0

    def __post_init__(self) -> None:
        if self.most < 1 or self.newest < 0:
            raise ValueError(
                f"HistoryWindows(most={self.most}, newest={self.newest}): at least 1 item before "
                "the one to tell; newest at least 0 (all windows)"
            )

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        data = given.log
        keep = told_rows(data)
        if data.label is not None:
            keep = keep & (data.label > 0)
        item = data.item[keep]
        start = np.searchsorted(data.user[keep], np.arange(data.n_users + 2))
        made, short = [], 0
        for user in range(1, data.n_users + 1):
            own, owner = item[start[user] : start[user + 1]], data.users.ids[user - 1]
            short += len(own) < 2
            for begin, end in self._cuts(len(own)):
                window = [data.items.ids[i - 1] for i in own[begin:end]]
                made.append((f"{owner}@{begin}", owner, window))
        listed = pa.list_(pa.string())
        table = pa.table({
            "example_id": pa.array([m[0] for m in made], pa.string()),
            "user_id": pa.array([m[1] for m in made], pa.string()),
            "history": pa.array([m[2] for m in made], listed),
            "shown": pa.array([m[2] for m in made], listed),
        })  # fmt: skip
        return table, {"examples": len(made), "users_without": short}

    def _cuts(self, length: int) -> list[tuple[int, int]]:
        """Return (begin, end) of each window of ``length`` rows, the newest first."""
        cuts, end = [], length
        while end > 1 and not (self.newest and len(cuts) == self.newest):
            begin = max(0, end - self.most - 1)
            cuts.append((begin, end))
            end = begin + 1
        return cuts
