"""A trained recommender as teacher: its best items after each training position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..data.training import TrainingData
from .teacher import Taught, Teacher, pairs_shown, positions_of, to_table


@dataclass(frozen=True)
class TrainedRanking(Teacher):
    """The best items of a trained recommender, no language model: the teacher that needs none.

    The teacher is a ``Train`` node on the same log, so its weights saw training rows and were
    chosen on validation like any model's. A distance is ``-ln softmax(s / temperature)`` over the
    items that the user has not seen at that position, so exp(-distance) is a probability.
    ``seen`` ranks items of the history as well.
    """

    temperature: float = 1.0
    seen: bool = False

    def teach(self, model: Any, data: TrainingData, name: str) -> Taught:
        """Return the rankings of ``model``, a folded network; ``name`` is its asset."""
        from .trained_ranking_net import ranked

        user, position = positions_of(data, self.newest)
        item, distance = ranked(
            model, data, user, position, self.k, temperature=self.temperature, seen=self.seen
        )
        return Taught(
            to_table(data, user, position, item, distance),
            f"no LLM ({name})",
            counts={"positions": len(user)},
            shown=pairs_shown(data, user, position),
        )
