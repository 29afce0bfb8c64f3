"""Where a user's training rows are cut: a text reads the oldest, what follows may be a target."""

from __future__ import annotations

import math


def cut_of(rows: int, share: float) -> int:
    """Return how many of ``rows`` training rows a text may read: the oldest ``share`` of them.

    At least one is read, and one stays behind the cut; of a single row that one is read.
    """
    return max(1, min(rows - 1, math.floor(share * rows))) if rows > 1 else rows
