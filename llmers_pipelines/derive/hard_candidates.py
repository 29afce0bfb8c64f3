"""Samples whose loss is high and whose score moves: what a judge is asked about (LLMHD)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from .candidates import PastModel
from .derivation import DerivedTable, Given


def recorded(sources: Sequence[Any], name: str) -> pa.Table:
    """Return the training statistics of the model among ``sources``, for the component ``name``.

    Raises ValueError where there is no model, or one that recorded none.
    """
    model = next((s for s in sources if isinstance(s, PastModel)), None)
    table = model.beside("statistics") if model is not None and model.beside else None
    if table is None:
        raise ValueError(
            f"{name} needs a model that recorded its training: Derive({name}(), Train(..., "
            "aux=(TrainingStatistics(),)), splits(...))"
        )
    if not table.num_rows:
        raise ValueError(f"{name}: no epoch was recorded; train at least two epochs")
    return table


def top_share(values: np.ndarray, share: float) -> np.ndarray:
    """Return the places of the floor(share n) largest values, ties by place."""
    return np.sort(np.argsort(-values, kind="stable")[: int(share * len(values))])


@dataclass(frozen=True)
class HardCandidates(DerivedTable):
    """``pair_id, user_id, item_id, label, partner_id, loss, variance``, one row per pair.

    B_N are the ``loss_share`` of the training pairs with the largest recorded loss. Of these the
    ``variance_share`` with the largest score variance is taken, among positives (label 1) and among
    their negatives (label 0) alike; ``pairwise`` takes both sides of each that is chosen, since
    they are compared. ``partner_id`` is the item that it was trained against. Source: the model
    with its ``TrainingStatistics`` and the splits. Population variance over the recorded epochs
    (LLMHD, arXiv:2409.10343).
    """

    rows: ClassVar[str] = "pairs"

    loss_share: float = 0.2
    variance_share: float = 0.5
    pairwise: bool = True
    round: int = 1

    def __post_init__(self) -> None:
        if not (0 <= self.loss_share <= 1 and 0 <= self.variance_share <= 1):
            raise ValueError(
                f"HardCandidates(loss_share={self.loss_share}, variance_share="
                f"{self.variance_share}): shares are in [0, 1]"
            )

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        told = recorded(given.sources, type(self).__name__)
        column = {c: told[c].to_numpy() for c in ("loss", "positive_variance", "negative_variance")}
        suspect = top_share(column["loss"], self.loss_share)
        chosen = [
            set(suspect[top_share(column[f"{side}_variance"][suspect], self.variance_share)])
            for side in ("positive", "negative")
        ]
        if self.pairwise:
            chosen = [chosen[0] | chosen[1]] * 2
        names = {c: told[c].to_pylist() for c in ("user_id", "item_id", "negative_id")}
        rows: dict[str, dict[str, Any]] = {}
        for label, side, own, other in ((1, "positive", "item_id", "negative_id"),
                                        (0, "negative", "negative_id", "item_id")):  # fmt: skip
            for n in sorted(chosen[1 - label]):
                user, item = names["user_id"][n], names[own][n]
                pair = f"{user}|{item}"
                rows.setdefault(pair, {
                    "pair_id": pair, "user_id": user, "item_id": item, "label": label,
                    "partner_id": names[other][n], "loss": float(column["loss"][n]),
                    "variance": float(column[f"{side}_variance"][n]),
                })  # fmt: skip
        table = pa.Table.from_pylist(list(rows.values()), schema=SCHEMA)
        return table, {"pairs": told.num_rows, "suspect": len(suspect), "asked": table.num_rows,
                       "positives": sum(table["label"].to_pylist())}  # fmt: skip


SCHEMA = pa.schema([
    ("pair_id", pa.string()), ("user_id", pa.string()), ("item_id", pa.string()),
    ("label", pa.int8()), ("partner_id", pa.string()), ("loss", pa.float64()),
    ("variance", pa.float64()),
])  # fmt: skip
