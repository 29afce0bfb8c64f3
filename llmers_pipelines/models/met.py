"""Which ids training meets. A row of an id table that no batch reads would keep the noise of its
draw, so it is set to what an unknown id has: zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.training import HISTORY, TRAIN

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class Met:
    """Users (bool[U + 1]) with training rows, and items (bool[N + 1]) that such a row or the
    HISTORY row of such a user is about. Position 0 is False in both."""

    users: np.ndarray
    items: np.ndarray


def met_of(data: TrainingData) -> Met:
    """Return the ids that the batches of ``data`` can hold as users and as positive items."""
    users = np.zeros(data.n_users + 1, bool)
    users[data.user[data.split == TRAIN]] = True
    read = (data.split == TRAIN) | ((data.split == HISTORY) & users[data.user])
    items = np.zeros(data.n_items + 1, bool)
    items[data.item[read]] = True
    return Met(users, items)


def met_values(
    codes: Mapping[str, np.ndarray], shape: Mapping[str, Any], met: np.ndarray
) -> np.ndarray:
    """Return bool[V]: values of fields, one field after the other, that a met entity has.

    ``codes`` int64[n + 1, M] and ``shape`` (field -> [vocabulary, M]) are those of ``field_codes``.
    Value 0 of a field stands for an entity without any.
    """
    found = []
    for name, (size, _) in shape.items():
        own = codes[name][met]
        held = np.zeros(size + 1, bool)
        held[own[own > 0]] = True
        held[0] = bool((own == 0).all(axis=1).any())
        found.append(held)
    return np.concatenate(found)


def forget(table: Any, met: np.ndarray) -> None:
    """Set the rows of ``table`` (a tensor, n rows) that are not ``met`` (bool[n]) to zero.

    Done once, after the draw and before parts write their own starts, so that the random stream and
    every other row keep their bits. An optimizer leaves such rows at zero: they have no gradient,
    and weight decay shrinks nothing.
    """
    table.detach()[~met] = 0
