"""Interactions that a judge believes in, at most so many of an item (LLM-InS, ColdLLM)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ..data.training import TRAIN
from .derivation import DerivedTable, Given


@dataclass(frozen=True)
class SimulatedEdges(DerivedTable):
    """``user_id, item_id, source, p_yes``: pairs with ``p_yes`` of at least ``least``.

    Of each item the ``most`` surest; ties go to the better rank. A pair that is a training row is
    left out; one that equals a held-out row stays, since no held-out row is looked at.
    """

    rows: ClassVar[str] = "interactions"

    least: float = 0.5
    most: int = 20
    source: str = "llm_ins"

    def __post_init__(self) -> None:
        if not 0 <= self.least <= 1 or self.most < 0:
            raise ValueError(
                f"SimulatedEdges(least={self.least}, most={self.most}): least is in [0, 1], most "
                "at least 0"
            )

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        judged = given.table()
        data = given.log
        user = data.users.index(judged["user_id"].to_pylist())
        item = data.items.index(judged["item_id"].to_pylist())
        p, rank = judged["p_yes"].to_numpy(), judged["rank"].to_numpy()
        train, width = data.split == TRAIN, data.n_items + 1
        met = np.isin(user * width + item, data.user[train] * width + data.item[train])
        good = (p >= self.least) & (user > 0) & (item > 0) & ~met
        order = np.flatnonzero(good)
        order = order[np.lexsort((rank[order], -p[order], item[order]))]
        place = np.arange(len(order)) - np.searchsorted(item[order], item[order])
        kept = judged.take(np.sort(order[place < self.most]))
        table = pa.table({
            "user_id": kept["user_id"].combine_chunks(),
            "item_id": kept["item_id"].combine_chunks(),
            "source": pa.array([self.source] * kept.num_rows, pa.string()),
            "p_yes": kept["p_yes"].combine_chunks(),
        })  # fmt: skip
        return table, {"judged": judged.num_rows, "edges": table.num_rows,
                       "items": len(set(kept["item_id"].to_pylist()))}  # fmt: skip
