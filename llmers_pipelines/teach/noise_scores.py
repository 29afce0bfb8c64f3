"""How likely each title of a history is named as noise by a tuned model (LLM4DSR)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from ..prompts.noise import NoiseList, begun
from ..prompts.titled import Window, titles_by_position, windows_of
from .teacher import Taught, Teacher

if TYPE_CHECKING:
    from ..data.training import TrainingData
    from ..llm.choosing import Chosen
    from ..llm.protocol import ChoiceRequest


NAME = "noise_scores"  # of the task in the response store


@dataclass(frozen=True)
class NoiseScores(Teacher):
    """``user_id, row_id, window, position, item_id, logp`` of every training row with a title.

    A user's rows are cut into windows of ``prompt.shown`` titles, from the newest row backwards;
    the oldest window may be shorter, and one of fewer than ``least`` titles is not scored. One call
    reads a window: ``logp`` is the log-probability (nats) of the first token of each title behind
    ``Noise Items: '``; its other tokens are taken for certain, as in the paper. So two titles that
    begin alike have one score (``first_token_collisions`` counts such positions), and so has an
    item that stands twice in a window. ``position`` counts the user's training rows from 0.
    """

    asks_model: ClassVar[bool] = True
    exports: ClassVar[str] = "scores"

    prompt: NoiseList = field(default_factory=NoiseList)
    least: int = 3

    def requests(
        self,
        data: TrainingData,
        rows: Sequence[Mapping[str, Any]],
        model: Any,
        context: Mapping[str, Any],
    ) -> tuple[list[ChoiceRequest], list[Window]]:
        """Return one request per window and the windows; ``rows`` are the catalog's items."""
        from ..llm.protocol import ChoiceRequest

        known = {c: [r.get(c) for r in rows] for c in ("item_id", "title")}
        table = pa.table({c: pa.array(v, pa.string()) for c, v in known.items()})
        titles = titles_by_position(table, data)
        windows = windows_of(data, titles, self.prompt.shown, self.least)
        asked = [
            ChoiceRequest(w.name(data), tuple(begun([titles[i] for i in w.items], context)),
                          tuple(titles[i] for i in w.items), first_tokens=1)
            for w in windows
        ]  # fmt: skip
        return asked, windows

    def taught(
        self, data: TrainingData, asked: list[Window], chosen: Chosen, label: str
    ) -> Taught:
        """Return the scores; a window without an answer has none."""
        out: dict[str, list[Any]] = {c: [] for c in COLUMNS}
        collisions = answered = 0
        for window in asked:
            result = chosen.results.get(window.name(data))
            if result is None or result.error:
                continue
            answered += 1
            items = np.array(window.items)
            scores = np.array(result.sums)
            for n, (place, item, score) in enumerate(
                zip(window.positions, items, scores, strict=True)
            ):
                collisions += bool(((scores == score) & (items != items[n])).any())
                user = data.users.ids[window.user - 1]
                values = (user, f"{user}@{place}", int(window.positions[0]), int(place),
                          data.items.ids[item - 1], float(score))  # fmt: skip
                for column, value in zip(COLUMNS, values, strict=True):
                    out[column].append(value)
        table = pa.table({c: pa.array(out[c], kind) for c, kind in COLUMNS.items()})
        user = np.concatenate([np.full(len(w.items), w.user) for w in asked] or [np.zeros(0, int)])
        item = np.concatenate([np.array(w.items) for w in asked] or [np.zeros(0, int)])
        return Taught(
            table, label,
            counts={"windows": len(asked), "answered": answered,
                    "first_token_collisions": collisions, **chosen.counts},
            shown=(user.astype(int), item.astype(int)),
        )  # fmt: skip


COLUMNS = {"user_id": pa.string(), "row_id": pa.string(), "window": pa.int64(),
           "position": pa.int64(), "item_id": pa.string(), "logp": pa.float64()}  # fmt: skip
MEANINGS = {
    "user_id": "whose training row", "row_id": "user_id@position",
    "window": "position of the oldest row of the window that was asked about",
    "position": "place among the user's training rows, from 0",
    "item_id": "what stands there",
    "logp": "log-probability (nats) of the first token of its title as the noise",
}  # fmt: skip
