"""Ranks under scores that are a product of states and item vectors, without a row of scores.

A block of users meets items in chunks that fit into the cache. Each chunk is compared while it is
there and then overwritten, so memory sees vectors and counts alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .counting import FEWEST

CHUNK_ITEMS = 512  # with 512 users 1 MiB of scores
FULL = 127  # chunks that an int8 counts
ROUNDING = 2.0**-22  # twice what one of D terms of a product can be off, in single precision


@dataclass(frozen=True)
class Product:
    """Scores ``(state @ items.T) * scale`` of states (B, D) and items (N + 1, D)."""

    state: Tensor
    items: Tensor
    scale: float = 1.0

    def countable(self) -> bool:
        """Whether ``lead`` applies: single precision on a CPU, and no score infinite or NaN."""
        if self.state.device.type != "cpu" or self.state.dtype != torch.float32:
            return False
        most = float(self.state.shape[1]) * max(1.0, abs(self.scale))
        for table in (self.state, self.items):
            low, high = (float(v) for v in torch.aminmax(table.detach()))
            if not (low > -np.inf and high < np.inf):  # a NaN fails too
                return False
            most *= max(1.0, -low, high)
        return most < 1e37

    def joined(self, states: Sequence[Tensor]) -> Product:
        """Return the product of several blocks of states."""
        return replace(self, state=torch.cat(list(states)))


def enough(states: Tensor) -> Tensor:
    """Return ``states`` (B, ...) with rows repeated up to ``FEWEST``.

    A product of fewer rows may round the last columns in a way of its own, so that equal items
    would not tie.
    """
    if len(states) >= FEWEST or not len(states):
        return states
    return states[torch.arange(FEWEST, device=states.device) % len(states)]


def lead(product: Product, target: np.ndarray, row: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Return the number of items above each user's ``target`` (B,) minus that below: int64[B].

    The ``item`` of each ``row`` (both (M,), distinct pairs without targets) and column 0 do not
    take part. With C candidates the rank, ties counted half, is ``(C + 1 + lead) / 2``. The product
    has to be ``countable``.
    """
    users, product = len(target), replace(product, state=enough(product.state))
    target = np.resize(target, len(product.state))  # rows that are repeated have seen nothing
    seen, aim = _by_chunk(item), _by_chunk(target)
    guess = (product.state @ product.items[torch.from_numpy(target)].T).diagonal() * product.scale
    own = guess.numpy().copy()
    while True:
        count, found = _compared(product, own, target, aim, row, item, seen)
        if (found == own).all():
            seen_by = np.bincount(row, minlength=users)  # what was seen was counted as below
            return count[:users] + seen_by
        own = found  # products of another shape rounded differently


def behind(
    product: Product, target: np.ndarray, row: np.ndarray, item: np.ndarray, few: np.ndarray,
    within: int,
) -> np.ndarray:  # fmt: skip
    """Return bool[B]: whether at least ``within`` of the items ``few`` (F,) are above the target.

    Such a target is not among the first ``within``, and no other item has to be looked at. True
    only where it holds under every rounding: an item counts as above by more than what two
    products of one pair of vectors can differ by. Arguments are those of ``lead``.
    """
    state, items = product.state, product.items[torch.from_numpy(few)]
    aim = product.items[torch.from_numpy(target)]
    own = torch.einsum("bd,bd->b", state, aim)
    scores = state @ items.T
    if product.scale < 0:
        own, scores = -own, -scores
    place = np.full(len(product.items), -1)
    place[few] = np.arange(len(few))
    column = place[item]
    scores.numpy()[row[column >= 0], column[column >= 0]] = -np.inf
    largest = max(items.norm(dim=1).max(), aim.norm(dim=1).max())
    limit = own + ROUNDING * state.shape[1] * largest * state.norm(dim=1)
    flags = torch.empty_like(scores)  # float flags are made and summed faster than bool ones
    return torch.gt(scores, limit[:, None], out=flags).sum(1).numpy() >= within


def _by_chunk(item: np.ndarray) -> list[np.ndarray]:
    """Return the places in ``item`` (M,) of the items of each chunk."""
    chunk = (item - 1) // CHUNK_ITEMS
    order = np.argsort(chunk, kind="stable")
    last = int(chunk.max(initial=0))
    return np.split(order, chunk[order].searchsorted(np.arange(1, last + 1)))


def _compared(
    product: Product, own: np.ndarray, target: np.ndarray, aim: list[np.ndarray], row: np.ndarray,
    item: np.ndarray, seen: list[np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return (above minus below, with what was seen counted as below, and the targets' scores)."""
    users, n = len(own), len(product.items)
    width = min(CHUNK_ITEMS, n - 1)
    buffer = torch.empty(users, width)
    flags, counts = np.empty(buffer.shape, bool), np.zeros(buffer.shape, np.int8)
    total, found, limit = np.zeros(users, np.int64), np.empty(users, np.float32), own[:, None]
    for number, low in enumerate(range(1, n, CHUNK_ITEMS)):
        start = min(low, n - width)  # a narrow last chunk would be rounded in another way
        torch.mm(product.state, product.items[start : start + width].T, out=buffer)
        if product.scale != 1:
            buffer.mul_(product.scale)
        new = slice(low - start, None)
        scores, flag, count = buffer.numpy()[:, new], flags[:, new], counts[:, new]
        if number < len(aim):
            at = aim[number]
            found[at] = scores[at, target[at] - low]
        if number < len(seen):
            at = seen[number]
            scores[row[at], item[at] - low] = -np.inf
        count += np.greater(scores, limit, out=flag).view(np.int8)
        count -= np.less(scores, limit, out=flag).view(np.int8)
        if number % FULL == FULL - 1:
            total += counts.sum(1, dtype=np.int64)
            counts[:] = 0
    return total + counts.sum(1, dtype=np.int64), found
