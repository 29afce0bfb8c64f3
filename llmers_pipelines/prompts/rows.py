"""Rows of users as prompts read them: what may be said of each item, and the history."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ..data.training import HISTORY, TRAIN, TrainingData


def told_items(
    log: TrainingData, items: pa.Table | None, fields: dict[str, str]
) -> list[dict[str, Any]]:
    """Return title and categories of each item by its position in the log."""
    told: list[dict[str, Any]] = [{} for _ in range(log.n_items + 1)]
    if items is not None:
        wordy = [c for c in items.column_names
                 if c in ("item_id", "title") or fields.get(c) == "category"]  # fmt: skip
        rows = items.select(wordy).to_pylist()
        for position, row in zip(log.items.index([r["item_id"] for r in rows]), rows, strict=True):
            told[position] = row
    return told


def user_rows(
    users: pa.Table, log: TrainingData, items: pa.Table | None, fields: dict[str, str]
) -> list[dict[str, Any]]:
    """Return users with ``history`` (oldest first) from TRAIN rows, or HISTORY rows where a cut
    is declared: then no row that becomes a label is shown (KAR's leak-safe cut)."""
    allowed = HISTORY if (log.split == HISTORY).any() else TRAIN
    told = told_items(log, items, fields)
    keep = log.split == allowed
    user, item, time = log.user[keep], log.item[keep], log.time[keep]
    rating = None if log.rating is None else log.rating[keep]
    start = np.searchsorted(user, np.arange(log.n_users + 2))
    out = []
    positions = log.users.index(users["user_id"].to_pylist())
    for row, u in zip(users.to_pylist(), positions, strict=True):
        history = []
        for i in range(start[u], start[u + 1]) if u else ():
            entry = {**told[item[i]], "time": int(time[i])}
            if rating is not None and rating[i] == rating[i]:
                entry["rating"] = float(rating[i])
            history.append(entry)
        out.append({**row, "history": history})
    return out
