"""How likely each title of a history is named as noise by a tuned model (LLM4DSR)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from ..derive.corruptions import titled_sequences, titles_by_position
from ..prompts.noise import NoiseList, begun
from .teacher import Taught, Teacher

if TYPE_CHECKING:
    from ..data.training import TrainingData
    from ..llm.choosing import Chosen
    from ..llm.protocol import ChoiceRequest


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

        table = pa.table({"item_id": [r["item_id"] for r in rows],
                          "title": pa.array([r.get("title") for r in rows], pa.string())})  # fmt: skip
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
    from ..data.training import TRAIN

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
