"""Items and training rows as the titles that prompts quote and answers name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..data.training import TRAIN, TrainingData
from .noise import said_title


def titles_by_position(items: pa.Table, data: TrainingData) -> list[str]:
    """Return each item's title as prompts quote it, by its position in the log; "" for none."""
    out = [""] * (data.n_items + 1)
    rows = items.to_pylist()
    for position, row in zip(data.items.index([r["item_id"] for r in rows]), rows, strict=True):
        out[position] = said_title(row)
    out[0] = ""
    return out


def titled_sequences(data: TrainingData, titles: Sequence[str]) -> dict[int, np.ndarray]:
    """Return each user's training items that have a title, oldest first."""
    keep = (data.split == TRAIN) & np.array([bool(t) for t in titles])[data.item]
    user, item = data.user[keep], data.item[keep]
    start = np.searchsorted(user, np.arange(data.n_users + 2))
    return {int(u): item[start[u] : start[u + 1]] for u in np.unique(user)}


@dataclass(frozen=True)
class Window:
    """Consecutive titled training rows of a user: items and positions, oldest first."""

    user: int
    items: tuple[int, ...]
    positions: tuple[int, ...]

    def name(self, data: TrainingData) -> str:
        return f"{data.users.ids[self.user - 1]}@{self.positions[0]}"


def windows_of(
    data: TrainingData, titles: Sequence[str], shown: int, least: int
) -> list[Window]:
    """Return the windows of all users; positions count training rows without a title as well."""
    out = []
    rows = np.flatnonzero(data.split == TRAIN)
    start = np.searchsorted(data.user[rows], np.arange(data.n_users + 2))
    for user in titled_sequences(data, titles):
        item = data.item[rows[start[user] : start[user + 1]]]
        place = np.flatnonzero(np.array([bool(titles[i]) for i in item]))
        for end in range(len(place), 0, -shown):
            part = place[max(0, end - shown) : end]
            if len(part) >= least:
                out.append(Window(user, tuple(int(i) for i in item[part]),
                                  tuple(int(p) for p in part)))  # fmt: skip
    return out
