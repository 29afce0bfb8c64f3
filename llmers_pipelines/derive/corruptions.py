"""Histories with one planted stranger: what a denoiser is tuned on (LLM4DSR, arXiv:2408.08208)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ..data.training import TrainingData
from ..prompts.noise import END, NOISE, REPLACE, told
from ..prompts.titled import titled_sequences, titles_by_position
from .derivation import DerivedTable, Given


@dataclass(frozen=True)
class Corruptions(DerivedTable):
    """``samples`` examples: one position of a window of titles holds a random item.

    The window is ``shown`` consecutive training rows of a user, at least ``least``; the position
    and the item are drawn uniformly, the item from those that the user has no training row of.
    The answer names the stranger and the title that stood there. ``shown`` holds the real items of
    a row, ``position`` the place, ``noise_id`` and ``item_id`` stranger and original. Validation
    and test rows are not read, neither to show nor to avoid.
    """

    rows: ClassVar[str] = "examples"
    reads_words: ClassVar[bool] = True

    samples: int = 5000
    shown: int = 10
    least: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or not 2 <= self.least <= self.shown:
            raise ValueError(
                f"Corruptions(samples={self.samples}, shown={self.shown}, least={self.least}): at "
                "least 1 example of at least 2 titles, at most `shown` of them"
            )

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        """Return the examples. Sources: the item table and the log."""
        items = given.table()
        data = given.log
        titles = titles_by_position(items, data)
        sequences = titled_sequences(data, titles)
        able = [u for u, s in sequences.items() if len(s) >= self.least]
        named = np.array([i for i, t in enumerate(titles) if t], np.int64)
        if not able or len(named) < 2:
            raise ValueError(
                f"Corruptions: no user has {self.least} training rows of items with a title"
            )
        rng = np.random.default_rng([self.seed, 11])
        rows = [self._row(rng, n, able, sequences, named, titles, data, given.context)
                for n in range(self.samples)]  # fmt: skip
        rows = [r for r in rows if r is not None]
        kinds = {"prompt": pa.string(), "answer": pa.list_(pa.string()),
                 "shown": pa.list_(pa.string()), "position": pa.int64()}  # fmt: skip
        names = ("example_id", "user_id", "prompt", "answer", "shown", "position", "noise_id",
                 "item_id")  # fmt: skip
        table = pa.table({
            n: pa.array([r[n] for r in rows], kinds.get(n, pa.string())) for n in names
        })  # fmt: skip
        return table, {"users": len(able), "examples": len(rows)}

    def _row(
        self, rng: np.random.Generator, number: int, able: Sequence[int],
        sequences: Mapping[int, np.ndarray], named: np.ndarray, titles: Sequence[str],
        data: TrainingData, context: Mapping[str, Any] | None,
    ) -> dict[str, Any] | None:  # fmt: skip
        user = able[rng.integers(len(able))]
        whole = sequences[user]
        size = min(self.shown, len(whole))
        start = int(rng.integers(len(whole) - size + 1))
        window = whole[start : start + size]
        place = int(rng.integers(size))
        for _ in range(100):  # nobody has met the whole catalog, hardly anybody most of it
            noise = int(named[rng.integers(len(named))])
            if noise not in whole:
                break
        else:
            return None
        seen = [titles[i] for i in window]
        seen[place] = titles[noise]
        ids = data.items.ids
        return {
            "example_id": f"corrupted_{number:06d}", "user_id": data.users.ids[user - 1],
            "prompt": json.dumps(told(seen, context), ensure_ascii=False),
            # In pieces where an answer is begun later: a title has the token ids of a choice.
            "answer": [NOISE, titles[noise], REPLACE, titles[window[place]], END],
            "shown": [ids[i - 1] for n, i in enumerate(window) if n != place],
            "position": place, "noise_id": ids[noise - 1], "item_id": ids[window[place] - 1],
        }  # fmt: skip
