"""One row per evaluated target or impression: what every metric is a query on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa

from ..data.training import SPLIT_NAMES, TEST, TrainingData
from ..models.counting import FEWEST
from ..models.histories import Rows, distinct, history_before, rows_of, within
from .best import best_items
from .places import Places

BLOCK_BYTES = 4 << 20  # scores of one block; larger blocks leave the cache before they are counted
BLOCK_USERS = 512  # states that meet the items together
SMALLEST_BLOCK = 32  # users; below it the cost of a model call dominates


class Ranker(Protocol):
    """A model with a true ``reads_times`` is given the times of histories as well.

    Where scores are a product, a method ``product`` with the arguments of ``scores`` may give its
    factors (``models.product_net.Product``, or None): ranks then need no matrix of scores.
    """

    def scores(self, users: np.ndarray, histories: Sequence[np.ndarray]) -> np.ndarray:
        """Return float32[B, N + 1]; column 0 (padding) is ignored."""
        ...


class Predictor(Protocol):
    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Return float32[R] probabilities of a positive label, or ratings."""
        ...


def rank_table(
    model: Ranker,
    data: TrainingData,
    split: int,
    *,
    block: int = 512,
    only: np.ndarray | None = None,
    repeats: Literal["drop", "keep"] = "drop",
) -> pa.Table:
    """Return the rank of every target among all items, one row per (user, target).

    Columns: user_id string, user int64, item int64, rank float64, n_candidates int64; sorted by
    user and item. Candidates are all N items without those that the user has seen (train rows at
    validation, train and validation rows at test; history rows in both), and always the user's
    targets. ``rank = 1 + #{s_j > s_t} + #{s_j = s_t, j != t} / 2``: constant scores give the middle
    rank, never the first. A target that the user has seen before is dropped and counted in the
    table's stamp, or with ``repeats="keep"`` stays a candidate. ``only`` (bool[N + 1]) restricts
    candidates and targets, as in the cold-item protocol. ``block`` is the largest number of users
    per model call; fewer than 8 are asked for with repeats. Raises ``ValueError`` on NaN scores.
    """
    seen = history_before(data, split)
    user, item, gone_user, gone_item, repeated = _targets(data, split, seen, repeats)
    allowed = _allowed(data, only)
    column = np.where(allowed, np.cumsum(allowed) - 1, -1)  # of an item among the candidates
    user, item = user[allowed[item]], item[allowed[item]]
    gone_user, gone = gone_user[allowed[gone_item]], column[gone_item[allowed[gone_item]]]
    start, gone_start = (a.searchsorted(np.arange(data.n_users + 2)) for a in (user, gone_user))
    places = Places(start, column[item], gone_start, gone)
    rank, rest = np.empty(len(user)), distinct(user)
    if only is None and hasattr(model, "product"):
        one = start[rest + 1] - start[rest] == 1
        left = [rest[~one]]
        for users, product in _products(model, data, seen, rest[one], block):
            if product is None or not product.countable():
                left.append(users)
                continue
            at, values = places.by_product(users, product)
            rank[at] = values
        rest = np.sort(np.concatenate(left))
    for users, scores in scored_blocks(model, data, seen, rest, block):
        at, values = places.by_rows(users, scores[:, 1:] if only is None else scores[:, allowed])
        rank[at] = values
    return pa.table(
        {
            "user_id": _ids(data, user), "user": user, "item": item, "rank": rank,
            "n_candidates": int(allowed.sum()) - np.diff(gone_start)[user],
        },
        metadata=_stamp(data, split, repeats=repeats, repeated_targets=str(repeated)),
    )  # fmt: skip


def scored_blocks(
    model: Ranker, data: TrainingData, seen: Rows, users: np.ndarray, block: int = 512
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (users int64[B], scores float[B, N + 1]), checked; each user once.

    Users go by history length, so that a model which pads its batches pads little.
    """
    for part, more in _parts(model, data, seen, users, block):
        asked = np.resize(part, max(len(part), FEWEST))
        if len(asked) > len(part):
            more = tuple(seen.times(asked) for _ in more)
        scores = np.asarray(model.scores(asked, seen.lists(asked), *more))[: len(part)]
        if scores.shape != (len(part), data.n_items + 1):
            raise ValueError(
                f"scores of {type(model).__name__} have shape {scores.shape}, expected "
                f"{(len(part), data.n_items + 1)}: one column per item and column 0 for padding"
            )
        if np.isnan(scores[:, 1:].min(initial=np.inf)):  # a minimum carries NaN along
            bad = np.flatnonzero(np.isnan(scores[:, 1:]).any(axis=1))
            raise ValueError(
                f"scores of {type(model).__name__} are NaN for {len(bad)} of {len(part)} users, "
                f"first {data.users.ids[part[bad[0]] - 1]!r}: look for a diverged training or a "
                "constant column that was divided by its deviation"
            )
        yield part, scores


def _parts(
    model: Any, data: TrainingData, seen: Rows, users: np.ndarray, block: int
) -> Iterator[tuple[np.ndarray, tuple[list[np.ndarray], ...]]]:
    """Yield (users of one model call, their times if the model reads them)."""
    users = users[np.argsort(seen.counts[users], kind="stable")]
    step = min(block, max(SMALLEST_BLOCK, BLOCK_BYTES // (4 * (data.n_items + 1))))
    for low in range(0, len(users), step):
        part = users[low : low + step]
        yield part, (seen.times(part),) if getattr(model, "reads_times", False) else ()


def _products(
    model: Any, data: TrainingData, seen: Rows, users: np.ndarray, block: int
) -> Iterator[tuple[np.ndarray, Any]]:
    """Yield (users, product or None); model calls are those of ``scored_blocks``, so states are
    the same bits, and the states of several calls make one product."""
    waiting: list[np.ndarray] = []
    states: list[Any] = []
    for part, more in _parts(model, data, seen, users, block):
        product = model.product(part, seen.lists(part), *more)
        if product is None:  # the model's scores are no product
            yield users, None
            return
        waiting.append(part)
        states.append(product.state)
        if sum(map(len, waiting)) >= BLOCK_USERS:
            yield np.concatenate(waiting), product.joined(states)
            waiting, states = [], []
    if waiting:
        yield np.concatenate(waiting), product.joined(states)


def ctr_table(model: Predictor, data: TrainingData, split: int) -> pa.Table:
    """Return the prediction for every impression of ``split``, in the order of the log.

    Columns: user_id string, user int64, item int64, row int64 (row of the log), label float64 in
    {0, 1}, p float64; where the log has impressions, impression int64 (0 = unknown). Raises
    ``ValueError`` on missing labels and on values outside [0, 1] or NaN.
    """
    if data.label is None:
        raise ValueError(f"task {data.task!r} has no labels: use rank_table")
    row = np.flatnonzero(data.split == split)
    p = np.asarray(model.predict(row), np.float64)
    if p.shape != row.shape:
        raise ValueError(f"{type(model).__name__} predicted shape {p.shape} for {len(row)} rows")
    bad = np.flatnonzero(~((p >= 0) & (p <= 1)))
    if len(bad):
        raise ValueError(
            f"{type(model).__name__} predicted {p[bad[0]]} for row {row[bad[0]]} ({len(bad)} such "
            "rows): expected probabilities in [0, 1]"
        )
    user = data.user[row]
    shown = {} if data.impression is None else {"impression": data.impression[row]}
    return pa.table(
        {
            "user_id": _ids(data, user), "user": user, "item": data.item[row], "row": row, **shown,
            "label": data.label[row].astype(np.float64), "p": p,
        },
        metadata=_stamp(data, split),
    )  # fmt: skip


def rating_table(model: Predictor, data: TrainingData, split: int) -> pa.Table:
    """Return the predicted rating of every row of ``split``, in the order of the log.

    Columns: user_id string, user int64, item int64, row int64 (row of the log), rating float64,
    p float64 (predicted). Raises ``ValueError`` on missing ratings and predictions.
    """
    row = np.flatnonzero(data.split == split)
    if data.rating is None or not np.isfinite(data.rating[row]).all():
        raise ValueError(f"task {data.task!r} lacks ratings in the rows to evaluate")
    p = np.asarray(model.predict(row), np.float64)
    if p.shape != row.shape:
        raise ValueError(f"{type(model).__name__} predicted shape {p.shape} for {len(row)} rows")
    bad = np.flatnonzero(~np.isfinite(p))
    if len(bad):
        raise ValueError(
            f"{type(model).__name__} predicted {p[bad[0]]} for row {row[bad[0]]} ({len(bad)} such "
            "rows): expected a number"
        )
    user = data.user[row]
    return pa.table(
        {
            "user_id": _ids(data, user), "user": user, "item": data.item[row], "row": row,
            "rating": data.rating[row].astype(np.float64), "p": p,
        },
        metadata=_stamp(data, split),
    )  # fmt: skip


@dataclass(frozen=True)
class TopK:
    """Recommended lists: users int64[M] in order, items int64[M, k], 0 where candidates ran out."""

    users: np.ndarray
    items: np.ndarray


def top_k_lists(
    model: Ranker,
    data: TrainingData,
    k: int = 10,
    split: int = TEST,
    *,
    users: np.ndarray | None = None,
    block: int = 512,
) -> TopK:
    """Return the k best unseen items per user, best first, equal scores by position.

    Default users: those who have a target in ``split``.
    """
    seen = history_before(data, split)
    if users is None:
        users = data.user[data.split == split]
    users = distinct(users)
    lists, counts = np.zeros((len(users), k), np.int64), seen.counts
    step = max(1, BLOCK_BYTES // (4 * (data.n_items + 1)))
    for asked, scores in scored_blocks(model, data, seen, users, block):
        for low in range(0, len(asked), step):
            part = asked[low : low + step]
            row = np.repeat(np.arange(len(part)), counts[part])
            gone = np.concatenate(seen.lists(part))
            best = best_items(scores[low : low + step], row, gone, k)
            lists[users.searchsorted(part)] = best
    return TopK(users, lists)


def stamp_of(table: pa.Table) -> dict[str, str]:
    """Return what ``rank_table`` and ``ctr_table`` wrote beside the rows (split, data, ...)."""
    return {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}


def _stamp(data: TrainingData, split: int, **more: str) -> dict[str, str]:
    return {
        "task": data.task, "split": SPLIT_NAMES[split], "data": data.content_hash(), **more
    }  # fmt: skip


def _targets(
    data: TrainingData, split: int, seen: Rows, repeats: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Return the targets (user, item: int64[T], each pair once, sorted), what is no candidate
    (user, item alike), and how many targets had been seen before."""
    held, width = rows_of(data, (split,)), data.n_items + 1
    target = distinct(held.user * width + held.item)
    past = distinct(seen.user * width + seen.item)
    again = within(target, past)
    if repeats == "drop":
        target = target[~again]
    else:
        past = past[~within(past, target)]
    return *divmod(target, width), *divmod(past, width), int(again.sum())


def _allowed(data: TrainingData, only: np.ndarray | None) -> np.ndarray:
    shape = (data.n_items + 1,)
    if only is not None and (only.shape != shape or only.dtype != bool):
        raise ValueError(
            f"only has shape {only.shape} and type {only.dtype}, expected bool of {shape}"
        )
    allowed = np.ones(shape, bool) if only is None else only.copy()
    allowed[0] = False
    return allowed


def _ids(data: TrainingData, user: np.ndarray) -> Any:
    return pa.array(data.users.ids, pa.string()).take(pa.array(user - 1))
