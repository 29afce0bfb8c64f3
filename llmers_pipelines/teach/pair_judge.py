"""A language model as judge of pairs: would this user choose this item? (LLM-InS, ColdLLM)"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from ..prompts.titled import titled_sequences, titles_by_position
from ..prompts.would_like import ANSWERS, NO, YES, WouldLike
from .teacher import Taught, Teacher

if TYPE_CHECKING:
    from ..data.training import TrainingData
    from ..llm.choosing import Chosen
    from ..llm.protocol import ChoiceRequest

NAME = "pair_judgements"  # of the task in the response store


@dataclass(frozen=True)
class PairJudge(Teacher):
    """``row_id, user_id, item_id, rank, answer, p_yes`` of every offered pair that can be told.

    ``p_yes`` is the likelihood of Yes against that of No, so nothing can be invented and every
    answer is a number. A pair whose user has no title in training, or whose item has none, is not
    asked about. Pairs come from a table among the node's sources with those columns.
    """

    asks_model: ClassVar[bool] = True
    exports: ClassVar[str] = "judgements"

    prompt: WouldLike = field(default_factory=WouldLike)

    def requests(
        self,
        data: TrainingData,
        rows: Sequence[Mapping[str, Any]],
        offered: Any,
        context: Mapping[str, Any],
    ) -> tuple[list[ChoiceRequest], Asked]:
        """Return one request per pair of ``offered``; ``rows`` are the items of the catalog."""
        from ..llm.protocol import ChoiceRequest

        known = {c: [r.get(c) for r in rows] for c in ("item_id", "title")}
        table = pa.table({c: pa.array(v, pa.string()) for c, v in known.items()})
        titles = titles_by_position(table, data)
        sequences = titled_sequences(data, titles)
        users = data.users.index(offered["user_id"].to_pylist())
        places = data.items.index(offered["item_id"].to_pylist())
        asked, pairs, shown = [], [], []
        for row, user, item in zip(offered.to_pylist(), users, places, strict=True):
            before = sequences.get(int(user), ())[-self.prompt.shown :]
            if not len(before) or not titles[item]:
                continue
            messages = self.prompt.render([titles[i] for i in before], titles[item], context)
            asked.append(ChoiceRequest(row["row_id"], tuple(messages), ANSWERS))
            pairs.append(row)
            shown.append((int(user), before))
        return asked, Asked(pairs, shown)

    def taught(self, data: TrainingData, asked: Asked, chosen: Chosen, label: str) -> Taught:
        """Return the judgements; a pair without an answer has none."""
        out: dict[str, list[Any]] = {c: [] for c in COLUMNS}
        for row in asked.pairs:
            result = chosen.results.get(row["row_id"])
            if result is None or result.error:
                continue
            p = chance(*result.sums)
            told = {**row, "answer": YES if p >= 0.5 else NO, "p_yes": p}
            for column in COLUMNS:
                out[column].append(told[column])
        table = pa.table({c: pa.array(out[c], kind) for c, kind in COLUMNS.items()})
        users = [np.full(len(items), user) for user, items in asked.shown]
        items = [np.asarray(items) for _, items in asked.shown]
        none = [np.zeros(0, int)]
        return Taught(
            table, label,
            counts={"pairs": len(asked.pairs), "answered": table.num_rows,
                    "yes": out["answer"].count(YES), **chosen.counts},
            shown=(np.concatenate(users or none), np.concatenate(items or none)),
        )  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """Pairs in the order of the requests, and the training rows that each question tells."""

    pairs: list[dict[str, Any]]
    shown: list[tuple[int, np.ndarray]]


def chance(yes: float, no: float) -> float:
    """Return ``exp(yes) / (exp(yes) + exp(no))`` of two log-likelihoods."""
    return 1 / (1 + math.exp(min(700.0, no - yes)))


COLUMNS = {"row_id": pa.string(), "user_id": pa.string(), "item_id": pa.string(),
           "rank": pa.int32(), "answer": pa.string(), "p_yes": pa.float64()}  # fmt: skip
MEANINGS = {
    "row_id": "item_id@rank", "user_id": "who was judged", "item_id": "what was judged",
    "rank": "place of the user among those offered for the item, from 1",
    "answer": "Yes where p_yes is at least .5", "p_yes": "likelihood of Yes against No",
}  # fmt: skip
