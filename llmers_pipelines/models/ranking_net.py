"""Full ranking by counting: the rank of each target among all unseen items, in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .batches import SequenceBatch, left_pad
from .counting import FEWEST, above_below, spread
from .histories import Rows, distinct, history_before, rows_of, unique_pairs
from .histories import within as held
from .product_net import Product, behind, enough, lead

if TYPE_CHECKING:
    from ..data.training import TrainingData

STATE_ROWS = 512  # users whose states are computed together
CACHE_FLOATS = 1 << 19  # scores that are compared together: 2 MiB
FEW_ITEMS = 1024  # most frequent items, which most targets are behind enough of


@dataclass(frozen=True)
class Ranks:
    """One row per evaluated (user, target) pair."""

    user: np.ndarray  # int64[T]
    item: np.ndarray  # int64[T]
    rank: np.ndarray  # float64[T], 1 = best, ties count half
    candidates: np.ndarray  # int64[T], items that were ranked


@contextmanager
def kept(model: Any) -> Iterator[None]:
    """Put ``model`` into evaluation with its item outputs computed once, then restore it."""
    training = getattr(model, "training", False)
    model.eval()
    with torch.no_grad():
        model.keep()
        try:
            yield
        finally:
            model.release()
            model.train(training)


def device_of(model: Any) -> torch.device:
    tensor = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def scoring_batch(
    users: np.ndarray, histories: list[np.ndarray], max_len: int | None, device: Any = "cpu",
    times: list[np.ndarray] | None = None,
) -> SequenceBatch:  # fmt: skip
    """Return the batch that scores ``users`` with their ``histories`` (oldest first)."""
    return SequenceBatch(
        torch.as_tensor(np.asarray(users, np.int64)),
        torch.from_numpy(left_pad(histories, max_len)),
        time=None if times is None else torch.from_numpy(left_pad(times, max_len)),
    ).to(device)


def history_batch(model: Any, users: np.ndarray, history: Rows, device: Any) -> SequenceBatch:
    """Return the batch that scores ``users`` with ``history``, and its times if ``model`` reads."""
    times = history.times(users) if getattr(model, "reads_times", False) else None
    max_len = getattr(model, "max_len", None)
    return scoring_batch(users, history.lists(users), max_len, device, times)


def user_blocks(
    model: Any, users: np.ndarray, history: Rows, size: int = STATE_ROWS
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Yield (users, states) in blocks of users with histories of similar length."""
    device = device_of(model)
    users = users[np.argsort(history.counts[users], kind="stable")]
    for at in range(0, len(users), size):
        block = users[at : at + size]
        yield block, model.user_state(history_batch(model, block, history, device))


def rank_targets(model: Any, data: TrainingData, split: int, within: int | None = None) -> Ranks:
    """Rank the targets of ``split`` among all items that the user has not seen before.

    ``rank = 1 + #{s_j > s_t} + 0.5 #{s_j = s_t, j != t}``. A score that is not a number counts as
    a tie, so a model without scores lands in the middle, not at the top. A target that the user
    has seen before is left out. With ``within`` only ranks up to that place are sought: a target
    behind it may be given as the last one.
    """
    return rank_variants(
        model, data, split, lambda state: [model.score(state)], 1,
        product=getattr(model, "as_product", None), within=within,
    )[0]  # fmt: skip


def rank_variants(
    model: Any, data: TrainingData, split: int, variants: Callable[[Any], Iterable[Any]],
    count: int, *, product: Callable[[Any], Product | None] | None = None,
    within: int | None = None,
) -> list[Ranks]:  # fmt: skip
    """Rank as ``rank_targets`` under ``count`` scorings that share their work.

    ``variants(states)`` yields ``count`` tensors (B, N + 1), which are overwritten. ``product``
    gives the factors of the only variant, which spare its rows of scores.
    """
    n = data.n_items
    targets, history = rows_of(data, (split,)), history_before(data, split)
    user, item = unique_pairs(targets.user, targets.item, n)
    seen_user, seen_item = unique_pairs(history.user, history.item, n)
    new = ~held(user * (n + 1) + item, seen_user * (n + 1) + seen_item)
    user, item = user[new], item[new]
    start = np.searchsorted(user, np.arange(data.n_users + 2))
    seen_start = np.searchsorted(seen_user, np.arange(data.n_users + 2))
    counts, seen_counts = np.diff(start), np.diff(seen_start)
    rank = np.empty((count, len(user)))
    few = np.zeros(0, np.int64)
    if within is not None and n > 2 * FEW_ITEMS:
        few = 1 + np.argsort(-data.train_counts[1:], kind="stable")[:FEW_ITEMS]

    def seen_of(users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        row, index = spread(seen_start[users], seen_counts[users])
        return row, seen_item[index]

    def by_product(users: np.ndarray, factors: Product) -> None:
        above = lead(factors, item[start[users]], *seen_of(users))
        rank[0, start[users]] = 0.5 * (n - seen_counts[users] + 1 + above)

    with kept(model):
        step = max(FEWEST, CACHE_FLOATS // (n + 1))
        open_ = _Waiting(by_product)
        for users, states in user_blocks(model, distinct(user), history):
            factors = product(states) if product and (counts[users] == 1).all() else None
            if factors is not None and factors.countable():
                if not len(few):
                    by_product(users, factors)
                    continue
                gone = behind(factors, item[start[users]], *seen_of(users), few, within or 0)
                rank[0, start[users[gone]]] = (n - seen_counts)[users[gone]]
                open_.add(users[~gone], factors, torch.from_numpy(~gone))
                continue
            for at in range(0, len(users), step):
                part = users[at : at + step]
                row, index = spread(start[part], counts[part])
                candidates = n - seen_counts[part][row]
                scorings = variants(enough(states[at : at + step]))
                for out, scores in zip(rank, scorings, strict=True):
                    own = scores[: len(part)]
                    out[index] = _count(own, seen_of(part), row, item[index], candidates)
        open_.close()
    candidates = n - seen_counts[user]
    return [Ranks(user, item, one, candidates) for one in rank]


class _Waiting:
    """Users whose targets may be among the first, until they are enough for one product."""

    def __init__(self, job: Callable[[np.ndarray, Product], None]) -> None:
        self._job, self._users, self._states = job, [], []
        self._product: Product | None = None

    def add(self, users: np.ndarray, product: Product, rows: torch.Tensor) -> None:
        if sum(map(len, self._users)) + len(users) > STATE_ROWS:
            self.close()
        self._users.append(users)
        self._states.append(product.state[rows])
        self._product = product

    def close(self) -> None:
        users = np.concatenate([np.zeros(0, np.int64), *self._users])
        if len(users) and self._product is not None:
            self._job(users, self._product.joined(self._states))
        self._users, self._states = [], []


def _put(values: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)


def _count(
    scores: torch.Tensor, masked: tuple[np.ndarray, np.ndarray], row: np.ndarray, item: np.ndarray,
    candidates: np.ndarray,
) -> np.ndarray:  # fmt: skip
    if scores.device.type == "cpu" and scores.dtype in (torch.float32, torch.float64):
        table = scores.numpy()  # shares the memory
        table[:, 0] = -np.inf
        table[masked] = -np.inf
        above, below = above_below(table, row, table[row, item])
    else:
        above, below = _count_on_device(scores, masked, row, item)
    below -= scores.shape[1] - candidates  # the masked ones
    return 1 + above + 0.5 * (candidates - 1 - above - np.maximum(below, 0))


def _count_on_device(
    scores: torch.Tensor, masked: tuple[np.ndarray, np.ndarray], row: np.ndarray, item: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    device = scores.device
    scores[:, 0] = -torch.inf
    scores[_put(masked[0], device), _put(masked[1], device)] = -torch.inf
    if len(row) != len(scores) or (row != np.arange(len(row))).any():  # several targets per user
        scores = scores[_put(row, device)]
    target = scores.gather(1, _put(item, device)[:, None])
    flags = torch.empty_like(scores)  # float flags sum faster than bool ones
    above = torch.gt(scores, target, out=flags).sum(1).cpu().numpy().astype(np.int64)
    below = torch.lt(scores, target, out=flags).sum(1).cpu().numpy().astype(np.int64)
    return above, below


def ndcg(ranks: Ranks, k: int = 10) -> float:
    """Return the mean over users of NDCG@k; with one target a user: ``1 / log2(rank + 1)``."""
    if not len(ranks.user):
        return float("nan")
    gain = np.where(ranks.rank <= k, 1 / np.log2(ranks.rank + 1), 0.0)
    _, first, counts = np.unique(ranks.user, return_index=True, return_counts=True)
    ideal = np.cumsum(1 / np.log2(np.arange(2, k + 2)))
    return float((np.add.reduceat(gain, first) / ideal[np.minimum(counts, k) - 1]).mean())


def full_metric(name: str, model: Any, data: TrainingData, split: int) -> float:
    """Return ``ndcg@k`` or ``hr@k`` of ``model`` on ``split``, ranked only as far as k asks for."""
    cut = name.partition("@")[2]
    within = int(cut) if cut.isdigit() else None
    return rank_metric(name, rank_targets(model, data, split, within))


def rank_metric(name: str, ranks: Ranks) -> float:
    """Return ``ndcg@k`` or ``hr@k`` (mean share of targets in the first k)."""
    kind, _, cut = name.partition("@")
    if kind == "ndcg" and cut.isdigit():
        return ndcg(ranks, int(cut))
    if kind == "hr" and cut.isdigit():
        return float((ranks.rank <= int(cut)).mean()) if len(ranks.rank) else float("nan")
    raise ValueError(f"unknown ranking metric {name!r}: use 'ndcg@<k>' or 'hr@<k>'")
