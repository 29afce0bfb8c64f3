"""Examples to tune a judge of preferences on: yes or no, and which of a list (LLM-InS)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ..data.training import TrainingData
from ..prompts.titled import titled_sequences, titles_by_position
from ..prompts.would_like import NO, YES, WouldLike
from .derivation import DerivedTable, Given


@dataclass(frozen=True)
class PreferenceExamples(DerivedTable):
    """``samples`` examples of warm items, a third of each kind.

    Yes: a training item of the user, told as the next one after those before it. No: an item drawn
    uniformly from those that somebody trains on and the user does not. Which: the Yes item among
    ``candidates`` titles of which the others are drawn as in No. ``shown`` holds what a row tells
    of the user, the positive included. Validation and test rows are not read, so a cold item never
    occurs.
    """

    rows: ClassVar[str] = "examples"
    reads_words: ClassVar[bool] = True

    prompt: WouldLike = field(default_factory=WouldLike)
    samples: int = 3000
    candidates: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 3 or self.candidates < 2:
            raise ValueError(
                f"PreferenceExamples(samples={self.samples}, candidates={self.candidates}): at "
                "least 3 examples and 2 candidates"
            )

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        """Return the examples. Sources: the item table and the log."""
        items = given.table()
        data = given.log
        titles = titles_by_position(items, data)
        sequences = titled_sequences(data, titles)
        able = [u for u, s in sequences.items() if len(s) > 1]
        warm = np.array([i for i in np.flatnonzero(data.train_counts) if i and titles[i]])
        if not able or len(warm) <= self.candidates:
            raise ValueError(
                "PreferenceExamples: no user has two training rows of items with a title, or fewer "
                f"than {self.candidates + 1} items have one"
            )
        rng = np.random.default_rng([self.seed, 17])
        made = (self._row(rng, n, able, sequences, warm, titles, data, given.context)
                for n in range(self.samples))  # fmt: skip
        rows = [row for row in made if row]
        return pa.Table.from_pylist(rows, schema=SCHEMA), {"users": len(able), "rows": len(rows)}

    def _row(
        self, rng: np.random.Generator, number: int, able: Sequence[int],
        sequences: Mapping[int, np.ndarray], warm: np.ndarray, titles: Sequence[str],
        data: TrainingData, context: Mapping[str, Any] | None,
    ) -> dict[str, Any] | None:  # fmt: skip
        user = able[rng.integers(len(able))]
        whole = sequences[user]
        place = int(rng.integers(1, len(whole)))
        before, aim = whole[max(0, place - self.prompt.shown) : place], int(whole[place])
        free = warm[~np.isin(warm, whole)]
        history = [titles[i] for i in before]
        kind = number % 3
        if kind and not len(free):
            return None
        if kind == 0:
            messages, answer = self.prompt.render(history, titles[aim], context), YES
        elif kind == 1:
            drawn = titles[int(rng.choice(free))]
            messages, answer = self.prompt.render(history, drawn, context), NO
        else:
            others = rng.choice(free, min(len(free), self.candidates - 1), replace=False)
            mixed = [titles[i] for i in rng.permutation([aim, *others])]
            messages, answer = self.prompt.which(history, mixed, context), titles[aim]
        told = [*before, aim] if kind != 1 else before
        ids = data.items.ids
        return {
            "example_id": f"preference_{number:06d}", "user_id": data.users.ids[user - 1],
            "prompt": json.dumps(messages, ensure_ascii=False), "answer": [answer],
            "shown": [ids[i - 1] for i in told],
        }  # fmt: skip


SCHEMA = pa.schema([
    ("example_id", pa.string()), ("user_id", pa.string()), ("prompt", pa.string()),
    ("answer", pa.list_(pa.string())), ("shown", pa.list_(pa.string())),
])  # fmt: skip
