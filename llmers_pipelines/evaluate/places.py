"""The place of held-out items among a user's candidates: by rows of scores, or by a product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..models.counting import above_below, spread


@dataclass(frozen=True)
class Places:
    """Targets and what is no candidate, each grouped by user, as columns of the score matrix.

    Those of user u are ``start[u]:start[u + 1]``. A rank is ``1 + above + (equal others) / 2``.
    """

    start: np.ndarray  # int64[U + 2]
    target: np.ndarray  # int64[T]
    gone_start: np.ndarray  # int64[U + 2]
    gone: np.ndarray  # int64[G], no target among them

    def by_rows(self, users: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (places in ``target``, ranks) of ``users`` (B,) with ``scores`` (B, C)."""
        count = self.start[users + 1] - self.start[users]
        at, rank = self._single(users[count == 1], scores, np.flatnonzero(count == 1))
        ats, ranks = [at], [rank]
        for row in np.flatnonzero(count != 1):
            u = users[row]
            here = np.arange(self.start[u], self.start[u + 1])
            out = scores[row, self.gone[self.gone_start[u] : self.gone_start[u + 1]]]
            values = scores[row, self.target[here]]
            ats.append(here)
            # the target ties with itself, which gives it half a place
            ranks.append(0.5 + count_above(scores[row], values) - count_above(out, values))
        return np.concatenate(ats), np.concatenate(ranks)

    def _single(
        self, users: np.ndarray, scores: np.ndarray, place: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of users with one target, whose scores are the rows ``place``.

        What a user has seen is counted with the row and taken off, so no score is overwritten.
        """
        at = self.start[users]
        values = scores[place, self.target[at]]
        above, below = above_below(scores, place, values)
        row, gone, count = self._gone(users)
        out, own = scores[place[row], gone], values[row]
        above -= np.bincount(row[out > own], minlength=len(place))
        below -= np.bincount(row[out < own], minlength=len(place))
        equal = scores.shape[1] - count - above - below  # the target itself is one of them
        return at, 0.5 + above + 0.5 * equal

    def by_product(self, users: np.ndarray, product: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the same of ``users`` with one target each, where column c is item c + 1."""
        from ..models.product_net import lead

        at = self.start[users]
        row, gone, count = self._gone(users)
        above = lead(product, self.target[at] + 1, row, gone + 1)
        return at, 0.5 * (len(product.items) - count + above)

    def _gone(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        count = self.gone_start[users + 1] - self.gone_start[users]
        row, index = spread(self.gone_start[users], count)
        return row, self.gone[index], count


def count_above(values: np.ndarray, targets: np.ndarray) -> np.ndarray | float:
    """Return how many ``values`` exceed each target, equal ones counted half.

    A float64[T], or one number where there is one target.
    """
    if len(targets) == 1:  # two passes over a cached row beat one sort
        target = targets[0]
        return 0.5 * (np.count_nonzero(values > target) + np.count_nonzero(values >= target))
    ordered = np.sort(values)
    upto = ordered.searchsorted(targets, "left") + ordered.searchsorted(targets, "right")
    return len(values) - 0.5 * upto
