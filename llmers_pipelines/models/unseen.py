"""Negatives that a user has not met, drawn for many rows at once."""

from __future__ import annotations

import numpy as np

PAIRED = ("bpr", "bce")  # losses that compare with one such item


class Unseen:
    """Draws items among those that a user has no known row of.

    Uniform over the catalog, or ``popular``: as likely as the item's share of the known pairs, so
    never one without a pair.
    """

    def __init__(
        self, user: np.ndarray, item: np.ndarray, n_items: int, *, popular: bool = False
    ) -> None:
        """``user``, ``item`` int64[P]: known pairs, each once. ValueError for a user with all."""
        self.n_items = n_items
        self._pool = item if popular else None
        self._key = np.sort(user * (n_items + 1) + item)
        drawn = n_items if self._pool is None else len(np.unique(item))
        if np.bincount(user, minlength=1).max(initial=0) >= max(drawn, 1):
            which = "items" if self._pool is None else "items with a row"
            raise ValueError(
                f"a user has all {drawn} {which} in training, so no negative exists; drop that "
                "user or use a softmax loss ('ssm', 'ce')"
            )

    def __call__(self, user: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return an item int64[R] for each entry of ``user``, drawn anew until it is unknown."""
        n = self.n_items
        out = self._draw(len(user), rng)
        wrong = np.arange(len(user))
        while len(wrong):
            key = user[wrong] * (n + 1) + out[wrong]
            at = np.minimum(np.searchsorted(self._key, key), len(self._key) - 1)
            wrong = wrong[self._key[at] == key]
            out[wrong] = self._draw(len(wrong), rng)
        return out

    def _draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        if self._pool is None:
            return rng.integers(1, self.n_items + 1, count)
        return self._pool[rng.integers(0, len(self._pool), count)]
