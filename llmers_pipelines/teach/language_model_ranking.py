"""A language model as teacher: it ranks candidates after a training position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..plan import PlanError
from ..prompts.next_item import NextItem
from .teacher import Taught, Teacher, pairs_shown, positions_of, prefixes, to_table

if TYPE_CHECKING:
    from ..data.training import TrainingData
    from ..llm.choosing import Chosen
    from ..llm.protocol import ChoiceRequest

NAME = "teacher_rankings"  # of the task in the response store


@dataclass(frozen=True)
class LanguageModelRanking(Teacher):
    """The ``k`` candidates whose titles a language model finds likeliest, by ``Engine.choose``.

    ``candidates`` items that the user has not seen come from a pinned recommender among the node's
    sources, or are drawn at random (equal for equal ``seed``) where there is none. A distance is
    minus the mean log-probability (nats) of the title's tokens. Only the ``newest`` positions are
    taught, because each costs a call. The model is asked as it is: it was not tuned to recommend,
    as the paper's teacher was. Items without words cannot be ranked.
    """

    asks_model: ClassVar[bool] = True

    newest: int = 1
    candidates: int = 20
    prompt: NextItem = field(default_factory=NextItem)
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidates < self.k:
            raise PlanError(
                f"LanguageModelRanking(k={self.k}, candidates={self.candidates}): rank at least as "
                "many candidates as are exported"
            )

    def requests(
        self,
        data: TrainingData,
        rows: Sequence[Mapping[str, Any]],
        model: Any,
        context: Mapping[str, Any],
    ) -> tuple[list[ChoiceRequest], Asked]:
        """Return one request per position and what its choices stand for.

        ``rows`` are the catalog's items; ``model`` is the network that proposes candidates, or None
        for random ones.
        """
        from ..llm.protocol import ChoiceRequest

        user, position = positions_of(data, self.newest)
        told: list[Mapping[str, Any]] = [{} for _ in range(data.n_items + 1)]
        for place, row in zip(data.items.index([r["item_id"] for r in rows]), rows, strict=True):
            told[place] = row
        told[0] = {}
        names = [self.prompt.answer(row) for row in told]
        histories = prefixes(data, user, position)
        if model is None:
            picked = self._drawn(data, user, position, histories)
        else:
            from .trained_ranking_net import ranked

            picked, _ = ranked(model, data, user, position, self.candidates)
        out, items = [], []
        for u, p, history, row in zip(user, position, histories, picked, strict=True):
            own = [int(i) for i in row if i and names[i]]
            messages = tuple(self.prompt.render([told[i] for i in history], context))
            row_id = f"{data.users.ids[u - 1]}@{p}"
            items.append(own)
            if own:
                out.append(ChoiceRequest(row_id, messages, tuple(names[i] for i in own)))
        return out, Asked(user, position, items)

    def _drawn(
        self, data: TrainingData, user: np.ndarray, position: np.ndarray,
        histories: Sequence[np.ndarray],
    ) -> np.ndarray:  # fmt: skip
        out = np.zeros((len(user), self.candidates), np.int64)
        for row, (u, p, history) in enumerate(zip(user, position, histories, strict=True)):
            rng = np.random.default_rng([self.seed, int(u), int(p)])
            left = np.setdiff1d(np.arange(1, data.n_items + 1), history)
            drawn = rng.permutation(left)[: self.candidates]
            out[row, : len(drawn)] = drawn
        return out

    def taught(self, data: TrainingData, asked: Asked, chosen: Chosen, label: str) -> Taught:
        """Return the rankings that the answers give; a position without an answer has none."""
        size = len(asked.user)
        item = np.zeros((size, self.k), np.int64)
        distance = np.zeros((size, self.k), np.float32)
        answered = 0
        for row, (u, p) in enumerate(zip(asked.user, asked.position, strict=True)):
            result = chosen.results.get(f"{data.users.ids[u - 1]}@{p}")
            if result is None or result.error:
                continue
            answered += 1
            means = np.array(result.means)
            best = np.argsort(-means, kind="stable")[: self.k]
            item[row, : len(best)] = np.array(asked.items[row])[best]
            distance[row, : len(best)] = np.maximum(-means[best], 0)
        return Taught(
            to_table(data, asked.user, asked.position, item, distance),
            label,
            counts={"positions": size, "answered": answered, **chosen.counts},
            shown=pairs_shown(data, asked.user, asked.position),
        )


@dataclass(frozen=True)
class Asked:
    """Positions in the order of the requests, and the items behind each request's choices."""

    user: np.ndarray
    position: np.ndarray
    items: list[list[int]]
