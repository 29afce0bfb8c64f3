"""Counting scores above and below a target's, one cached row at a time, for full rankings."""

from __future__ import annotations

import numpy as np

# Rows of a product of states and items: of 3 or fewer, some columns are rounded in another way than
# others, and equal items would not tie (measured with MKL; in catalogs of 5 to 11 items that holds
# for any number of rows).
FEWEST = 8


def above_below(
    scores: np.ndarray, rows: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each of ``rows`` (R,), how many of its scores are above and how many below
    ``values`` (R,), as int64[R] each. A NaN is neither.

    Two comparisons and two counts of a cached row: a tenth of the cost of the scores themselves,
    where a sort would cost many times as much.
    """
    flags = np.empty(scores.shape[1], bool)
    above, below = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    for i, (row, value) in enumerate(zip(rows.tolist(), values, strict=True)):
        one = scores[row]
        above[i] = np.count_nonzero(np.greater(one, value, out=flags))
        below[i] = np.count_nonzero(np.less(one, value, out=flags))
    return above, below


def spread(first: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (i, first[i] + 0 .. counts[i] - 1) for every i, as two int64 arrays."""
    row = np.repeat(np.arange(len(first)), counts)
    offset = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    return row, first[row] + offset
