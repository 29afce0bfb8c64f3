"""Negatives that a user has not met, drawn for many rows at once."""

from __future__ import annotations

import numpy as np

PAIRED = ("bpr", "bce")  # losses that compare with one such item
ROUNDS = 50  # of drawing by popularity before the rest is drawn from what is left


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
        drawn = len(np.unique(item)) if popular else n_items
        if np.bincount(user, minlength=1).max(initial=0) >= max(drawn, 1):
            which, mend = "items", "use a softmax loss ('ssm', 'ce')"
            if popular:
                which, mend = "items with a row", "set draw to 'uniform'"
            raise ValueError(
                f"a user has all {drawn} {which} in training, so no negative exists; drop that "
                f"user or {mend}"
            )

    def __call__(self, user: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return an item int64[R] for each entry of ``user``, drawn anew until it is unknown."""
        n = self.n_items
        out = self._draw(len(user), rng)
        wrong, rounds = np.arange(len(user)), 0
        while len(wrong):
            key = user[wrong] * (n + 1) + out[wrong]
            at = np.minimum(np.searchsorted(self._key, key), len(self._key) - 1)
            wrong = wrong[self._key[at] == key]
            rounds += 1
            if self._pool is not None and rounds > ROUNDS:
                break
            out[wrong] = self._draw(len(wrong), rng)
        for who in np.unique(user[wrong]):  # has met nearly all that is popular
            rows = wrong[user[wrong] == who]
            out[rows] = self._left(int(who), len(rows), rng)
        return out

    def _draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        if self._pool is None:
            return rng.integers(1, self.n_items + 1, count)
        return self._pool[rng.integers(0, len(self._pool), count)]

    def _left(self, user: int, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw by popularity without a miss; costs as much as there are items."""
        n = self.n_items
        begin, end = np.searchsorted(self._key, [user * (n + 1), (user + 1) * (n + 1)])
        weight = np.bincount(self._pool, minlength=n + 1)
        weight[self._key[begin:end] - user * (n + 1)] = 0
        total = np.cumsum(weight)
        return np.searchsorted(total, rng.integers(0, total[-1], count), side="right")
