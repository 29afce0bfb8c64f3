"""Which fields of a row are masked (FLIP): at least one, and all that would tell a masked value.

B rows, C clauses (fields that a text tells).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.fences import tells


def drawn_fields(present: np.ndarray, ratio: float, draws: np.ndarray) -> np.ndarray:
    """Return bool (B, C): ``max(1, int(n ratio))`` of a row's n present fields.

    ``present`` bool (B, C); ``draws`` float (B, C), uniform: the fields of the lowest draws are
    taken. Without the maximum a row of few fields would have none masked (``int(6 * 0.15) = 0``).
    A row without any field has none masked.
    """
    n = present.sum(1)
    most = np.minimum(n, np.maximum(1, (n * ratio).astype(np.int64)))
    order = np.where(present, draws, np.inf).argsort(axis=1, kind="stable")
    rank = order.argsort(axis=1, kind="stable")
    return present & (rank < most[:, None])


def leaks(values: Sequence[str], parts: Sequence[Sequence[str]]) -> np.ndarray:
    """Return bool (C, C): whether a part of the value of field f can be read in that of field g,
    or a part of g's in that of f, for then g tells a piece of f.

    ``parts``: what each value lists (titles, genres), of a single value that value alone. They are
    given, for a comma may stand within a title.
    """
    read = np.array([[f != g and any(tells(other, part) for part in listed)
                      for g, other in enumerate(values)]
                     for f, listed in enumerate(parts)], bool).reshape(len(values), -1)  # fmt: skip
    return read | read.T


def closed(chosen: np.ndarray, told: np.ndarray) -> np.ndarray:
    """Return bool (C,): ``chosen`` and each field in which a masked value could be read.

    ``told`` is what ``leaks`` returns. Repeated until no open field tells of a masked value.
    """
    while True:
        more = chosen | (told & chosen[:, None]).any(0)
        if (more == chosen).all():
            return more
        chosen = more
