"""Negatives that a user has not met, drawn for many rows at once."""

from __future__ import annotations

import numpy as np

PAIRED = ("bpr", "bce")  # losses that compare with one such item


class Unseen:
    """Draws uniform items among those that a user has no known row of."""

    def __init__(self, user: np.ndarray, item: np.ndarray, n_items: int) -> None:
        """``user``, ``item`` int64[P]: known pairs, each once. ValueError for a user with all."""
        self.n_items = n_items
        self._key = np.sort(user * (n_items + 1) + item)
        if np.bincount(user, minlength=1).max(initial=0) >= n_items:
            raise ValueError(
                f"a user has all {n_items} items in training, so no negative exists; drop that "
                "user or use a softmax loss ('ssm', 'ce')"
            )

    def __call__(self, user: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return an item int64[R] for each entry of ``user``, drawn anew until it is unknown."""
        n = self.n_items
        out = rng.integers(1, n + 1, len(user))
        wrong = np.arange(len(user))
        while len(wrong):
            key = user[wrong] * (n + 1) + out[wrong]
            at = np.minimum(np.searchsorted(self._key, key), len(self._key) - 1)
            wrong = wrong[self._key[at] == key]
            out[wrong] = rng.integers(1, n + 1, len(wrong))
        return out
