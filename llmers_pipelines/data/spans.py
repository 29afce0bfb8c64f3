"""Where the history of each row of a log stands: what is known strictly before it."""

from __future__ import annotations

import numpy as np

from .training import HISTORY, TRAIN, TrainingData


def history_spans(
    data: TrainingData, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (``seen``, ``start``, ``end``): the history of row r is ``seen[start[r]:end[r]]``.

    ``seen`` holds the row numbers of the TRAIN and HISTORY splits. The history of any row is the
    part of them that is its user's and strictly earlier in time: rows of equal time stay out, and
    so do validation and test rows at every time, also where the split is not by time. Where
    ``rows`` (bool[R]) is False a row is in no history.
    """
    clock = np.unique(data.time, return_inverse=True)[1].astype(np.int64)
    span = int(clock.max(initial=0)) + 1
    known = (data.split == TRAIN) | (data.split == HISTORY)
    seen = np.flatnonzero(known if rows is None else known & rows)
    key = data.user.astype(np.int64) * span + clock  # rising: rows are sorted by user, then time
    start = np.searchsorted(key[seen], data.user.astype(np.int64) * span)
    return seen, start, np.searchsorted(key[seen], key)
