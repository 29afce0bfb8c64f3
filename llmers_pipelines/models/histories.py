"""Who saw what before a split: histories and targets as compressed rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.training import HISTORY, SPLIT_NAMES, TEST, TRAIN, VALID, TrainingData

VISIBLE = {VALID: (TRAIN, HISTORY), TEST: (TRAIN, VALID, HISTORY)}


@dataclass(frozen=True)
class Rows:
    """Chosen rows of a log, grouped by user: those of user u are ``start[u]:start[u + 1]``."""

    start: np.ndarray  # int64[U + 2]
    item: np.ndarray  # int64[R], oldest first within a user
    row: np.ndarray  # int64[R], row number in the TrainingData
    clock: np.ndarray | None = None  # the time of every row of the TrainingData

    def of(self, user: int) -> np.ndarray:
        """Return the items of one user, oldest first."""
        return self.item[self.start[user] : self.start[user + 1]]

    def lists(self, users: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        return [self.of(int(u)) for u in users]

    def times(self, users: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        """Return the moments of what ``lists`` gives, int64 each."""
        if self.clock is None:
            raise ValueError("these rows were made without the times of their log")
        spans = ((self.start[int(u)], self.start[int(u) + 1]) for u in users)
        return [self.clock[self.row[a:b]] for a, b in spans]

    @property
    def counts(self) -> np.ndarray:
        """Rows per user, int64[U + 1]."""
        return np.diff(self.start)

    @property
    def user(self) -> np.ndarray:
        """The user of each row, int64[R]."""
        return np.repeat(np.arange(len(self.start) - 1), self.counts)


def rows_of(data: TrainingData, splits: Sequence[int]) -> Rows:
    """Return the rows of ``data`` whose split is one of ``splits``."""
    row = np.flatnonzero(np.isin(data.split, splits))
    start = np.searchsorted(data.user[row], np.arange(data.n_users + 2))
    return Rows(start, data.item[row], row, data.time)


def history_before(data: TrainingData, split: int) -> Rows:
    """Return what a model may see when it is evaluated on ``split``.

    At validation the train rows, at test train and validation rows (the model's weights have seen
    the train rows only); rows marked HISTORY are seen in both.
    """
    if split not in VISIBLE:
        raise ValueError(
            f"no history is defined before split {SPLIT_NAMES[split]!r}; use 'valid' or 'test'"
        )
    return rows_of(data, VISIBLE[split])


def unique_pairs(user: np.ndarray, item: np.ndarray, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each (user, item) once, sorted by user, then item."""
    return np.divmod(distinct(user * (n_items + 1) + item), n_items + 1)


def distinct(keys: np.ndarray) -> np.ndarray:
    """Return the sorted distinct ``keys``; one sort is far cheaper here than numpy's hashing."""
    keys = np.sort(keys)
    return keys[np.diff(keys, prepend=keys[:1] - 1) != 0]


def within(keys: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return which ``keys`` are among the sorted ``others``."""
    at = others.searchsorted(keys)
    found = at < len(others)
    found[found] = others[at[found]] == keys[found]
    return found
