"""A request that explores: the end of its list is drawn along the tree that the bundle keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..models.exploration import below, explored, replaced

NO_PLACE = "the tree has no place for this user, so nothing is explored"


@dataclass(frozen=True)
class Explore:
    """``temperature`` is the share of the list that is explored, ``layer`` that of the ancestor
    whose items count: 0 is the root (all items), deeper is nearer. ``seed`` decides the draws."""

    temperature: float
    layer: int = 1
    seed: int = 0


def tree_of(net: Any) -> Any:
    """Return the tree of a served network. Raises LookupError where it has none."""
    found = next((h for h in net.hooks if hasattr(h, "places")), None)
    if found is None:
        raise LookupError(
            f"this {type(net).__name__} keeps no tree to explore along; serve a method with "
            "HierarchyTree, such as HaRec, or leave the exploration out"
        )
    return found


def mixed(
    net: Any, user: int, ranked: np.ndarray, seen: np.ndarray, k: int, how: Explore
) -> tuple[np.ndarray, int]:
    """Return (items int64[K], how many of them, at the end, are explored) for a known user.

    Equal seed, user and list, equal draws.
    """
    users, items, layers = tree_of(net).places()
    count = replaced(k, how.temperature)
    near = below(int(users[user]), items, layers, how.layer)
    return explored(ranked, near, seen, count, np.random.default_rng([how.seed, user]))
