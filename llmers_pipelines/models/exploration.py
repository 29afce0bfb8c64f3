"""Exploration along a tree: the end of a list gives way to items near the user in the tree.

Source: HaRec / HERec (arXiv:2411.13865). The released code draws its items among all that are
below the user's ancestor; here those that the user has seen, which would be no exploration, and
those that the list keeps are left out.
"""

from __future__ import annotations

import numpy as np


def replaced(k: int, temperature: float) -> int:
    """Return how many of ``k`` places are explored: ``floor(temperature k)``, rounding aside."""
    if not 0 <= temperature <= 1:
        raise ValueError(f"the temperature of exploration is {temperature}; use a share in [0, 1]")
    return int(temperature * k + 1e-9)


def below(user: int, items: np.ndarray, layers: int, layer: int) -> np.ndarray:
    """Return the positions of the items that share the user's ancestor at ``layer``.

    ``user`` is the path of the user, ``items`` int32[N + 1] those of the items, in a tree of
    ``layers`` halvings; layer 0 is the root, so all items, ``layers`` the user's own leaf.
    """
    if not 0 <= layer <= layers:
        raise ValueError(f"the layer of exploration is {layer}; this tree has layers 0 to {layers}")
    up = layers - layer
    return np.flatnonzero((items[1:] >> up) == (user >> up)) + 1


def explored(
    ranked: np.ndarray, candidates: np.ndarray, seen: np.ndarray, count: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, int]:  # fmt: skip
    """Return (items int64[K], how many of them, at the end, are explored).

    ``ranked`` int64[K], best first: its last ``count`` places go to ``candidates`` drawn at random,
    without those of the list and those ``seen``. Where fewer are left, fewer places are replaced.
    """
    fresh = np.setdiff1d(np.setdiff1d(candidates, seen), ranked)
    count = min(count, len(ranked), len(fresh))
    drawn = rng.choice(fresh, count, replace=False)
    return np.concatenate([ranked[: len(ranked) - count], drawn]).astype(np.int64), count
