"""What a ``Teach`` node runs: who teaches, and the table that comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from ..data.training import HISTORY, TRAIN
from ..models.histories import rows_of
from ..plan import Component, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData

MEANINGS = {
    "user_id": "whose training position",
    "position": "known items of the user that the ranking was made from, the oldest ones",
    "rank": "from 1, best first",
    "item_id": "what the teacher ranks",
    "distance": "not below 0, lower is surer; does not fall with the rank",
}


@dataclass(frozen=True)
class Teacher(Component):
    """Ranks ``k`` items after each training position, or after the ``newest`` ones of each user.

    A training position of a user is a prefix of the known rows (training rows, and history rows
    where a split has them) that a training row follows. The teacher is shown these rows alone.
    """

    asks_model: ClassVar[bool] = False  # a language model is asked while the asset is made
    exports: ClassVar[str] = "rankings"  # or scores: one row per training position

    k: int = 10
    newest: int = 0  # 0 = all positions

    def __post_init__(self) -> None:
        if self.k < 1 or self.newest < 0:
            raise PlanError(
                f"{type(self).__name__}(k={self.k}, newest={self.newest}): k is at least 1, newest "
                "at least 0 (all positions)"
            )


@dataclass(frozen=True)
class Taught:
    """A teacher's table with what a person should know of it.

    ``label`` says who taught, and that no language model did where none was asked.
    ``refused`` holds rows that could not be used: row, column, value, reason.
    """

    rows: pa.Table
    label: str
    counts: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    refused: pa.Table | None = None
    shown: tuple[np.ndarray, np.ndarray] | None = None  # (user, item) pairs that the teacher saw


def positions_of(data: TrainingData, newest: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return (user int64[P], position int64[P]): the prefixes that a training row follows."""
    known = rows_of(data, (TRAIN, HISTORY))
    user = known.user
    position = np.arange(len(user)) - known.start[user]  # rows of the user before this one
    ahead = known.counts[user] - position  # 1 for the newest row
    good = (position > 0) & (data.split[known.row] == TRAIN)
    if newest:
        good &= ahead <= newest
    return user[good], position[good]


def prefixes(data: TrainingData, user: np.ndarray, position: np.ndarray) -> list[np.ndarray]:
    """Return the items, oldest first, that are known at each position."""
    known = rows_of(data, (TRAIN, HISTORY))
    return [known.of(int(u))[:p] for u, p in zip(user, position, strict=True)]


def pairs_shown(
    data: TrainingData, user: np.ndarray, position: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return each (user, item) that some prefix holds: the first rows up to the longest one."""
    longest = np.zeros(data.n_users + 1, np.int64)
    np.maximum.at(longest, user, position)
    users = np.flatnonzero(longest)
    lists = prefixes(data, users, longest[users])
    return np.repeat(users, [len(p) for p in lists]), np.concatenate([np.zeros(0, int), *lists])


def to_table(
    data: TrainingData,
    user: np.ndarray,
    position: np.ndarray,
    item: np.ndarray,
    distance: np.ndarray,
) -> pa.Table:
    """Return the rankings as rows; item int64[P, K] (0 = none), distance float[P, K]."""
    here = item > 0
    rank = here.cumsum(1)[here]
    row = np.nonzero(here)[0]
    return pa.table({
        "user_id": pa.array(np.array(data.users.ids, object)[user[row] - 1], pa.string()),
        "position": pa.array(position[row], pa.int64()),
        "rank": pa.array(rank, pa.int64()),
        "item_id": pa.array(np.array(data.items.ids, object)[item[here] - 1], pa.string()),
        "distance": pa.array(distance[here], pa.float32()),
    })  # fmt: skip
