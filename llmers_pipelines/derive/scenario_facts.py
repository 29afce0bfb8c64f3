"""What the training rows say of each scenario: how many, whose, of what (LLM4MSR)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ..data.training import HISTORY, TRAIN
from .derivation import DerivedTable, Given


@dataclass(frozen=True)
class ScenarioFacts(DerivedTable):
    """One row per scenario of the log: its counts, and its most met items by title.

    ``scenario_id`` and ``name`` (the same, as prompts tell it); ``interactions``, ``users``,
    ``items`` (distinct ones), ``liked`` (share of rows of label 1, None without labels),
    ``shared_users`` (share of its users who met another scenario as well), ``titles`` (the ``most``
    items met most). Training and history rows alone.
    """

    rows: ClassVar[str] = "entities"

    most: int = 5

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        data = given.log
        if data.scenario is None:
            raise ValueError("ScenarioFacts: the log has no scenarios; use a multi_scenario split")
        items = next((s for s in given.sources if isinstance(s, pa.Table)), None)
        titles = [""] * (data.n_items + 1)
        if items is not None and "title" in items.column_names:
            at = data.items.index(items["item_id"].to_pylist())
            for place, title in zip(at, items["title"].to_pylist(), strict=True):
                titles[place] = str(title or "")
        known = (data.split == TRAIN) | (data.split == HISTORY)
        code, user, item = data.scenario.codes[known], data.user[known], data.item[known]
        made = []
        for number, name in enumerate(data.scenario.vocabulary, start=1):
            own = code == number
            met = np.bincount(item[own], minlength=data.n_items + 1)
            best = [i for i in np.argsort(-met, kind="stable")[: self.most] if met[i] and titles[i]]
            who = np.unique(user[own])
            elsewhere = np.isin(who, user[~own & (code > 0)])
            label = None if data.label is None or not own.any() else data.label[known][own]
            made.append({
                "scenario_id": str(name), "name": str(name),
                "interactions": int(own.sum()), "users": len(who), "items": int((met > 0).sum()),
                "liked": None if label is None else round(float(label.mean()), 4),
                "shared_users": round(float(elsewhere.mean()), 4) if len(who) else 0.0,
                "titles": [titles[i] for i in best],
            })  # fmt: skip
        schema = pa.schema({
            "scenario_id": pa.string(), "name": pa.string(), "interactions": pa.int64(),
            "users": pa.int64(), "items": pa.int64(), "liked": pa.float64(),
            "shared_users": pa.float64(), "titles": pa.list_(pa.string()),
        })  # fmt: skip
        return pa.Table.from_pylist(made, schema), {"scenarios": len(made)}
