"""What a CTR network knows of a data set before step 0: sizes, field codes and rating levels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.training import TRAIN
from .met import Met, met_of

if TYPE_CHECKING:
    from ..data.training import Field, TrainingData

MAX_LEVELS = 16  # distinct ratings beyond this are cut at quantiles


@dataclass(frozen=True)
class CtrFields:
    """Field codes of one data set and the plain numbers that fix the shapes of a network.

    ``item`` and ``user`` map a field to codes int64[n + 1, M]: M = 1, or the most values that one
    entity has where a field is multi-valued (genres); 0 = none. ``shape`` is plain data, so that a
    served network is rebuilt without the log: ``n_users``, ``n_items``, ``user`` and ``item``
    (field -> [vocabulary size, M]), ``levels`` (the rating levels of a history, rising),
    ``liked_from`` (the lowest level that the label calls positive) and, where the log has
    scenarios, ``scenarios`` (the share of each one in the training rows that have one). ``met``:
    the ids that training meets.
    """

    item: Mapping[str, np.ndarray]
    user: Mapping[str, np.ndarray]
    shape: Mapping[str, Any]
    met: Met


def ctr_fields(data: TrainingData) -> CtrFields:
    """Collect the fields of ``data``; rating levels come from its training rows alone."""
    if data.label is None:
        raise ValueError(
            f"task {data.task!r} has no labels; a CTR model needs TrainingData.label in {{0, 1}} "
            "(choose the ctr task, or a label rule such as rating >= 4)"
        )
    train = data.split == TRAIN
    item, item_shape = field_codes("item", data.item_fields, data.n_items)
    user, user_shape = field_codes("user", data.user_fields, data.n_users)
    levels, liked_from = rating_levels(history_signal(data)[train], data.label[train])
    shape = {
        "n_users": data.n_users, "n_items": data.n_items, "user": user_shape, "item": item_shape,
        "levels": [float(x) for x in levels], "liked_from": liked_from,
    }  # fmt: skip
    if data.scenario is not None:
        count = np.bincount(data.scenario.codes[train], minlength=len(data.scenario.vocabulary) + 1)
        shape["scenarios"] = (count[1:] / max(1, count[1:].sum())).tolist()
    return CtrFields(item, user, shape, met_of(data))


def field_codes(
    side: str, fields: Mapping[str, Field], n: int
) -> tuple[dict[str, np.ndarray], dict[str, list[int]]]:
    """Return the checked codes int64[n + 1, M] of each field, and field -> [vocabulary, M]."""
    codes, shape = {}, {}
    for name in sorted(fields):
        array = np.asarray(fields[name].codes, np.int64)
        size = len(fields[name].vocabulary)
        if len(array) != n + 1:
            raise ValueError(
                f"{side} field {name!r} has {len(array)} rows of codes; {n + 1} expected "
                f"(one per {side}, and row 0 for padding)"
            )
        if array.size and (array.min() < 0 or array.max() > size):
            raise ValueError(
                f"{side} field {name!r} has codes {array.min()}..{array.max()}; 0..{size} expected "
                f"for a vocabulary of {size} values (0 = missing)"
            )
        codes[name] = array.reshape(n + 1, -1)
        shape[name] = [size, codes[name].shape[1]]
    return codes, shape


def history_signal(data: TrainingData) -> np.ndarray:
    """What a history says of each of its rows, float32[rows]: the rating, else the label."""
    signal = data.rating if data.rating is not None else data.label
    return np.nan_to_num(np.asarray(signal, np.float32))


def rating_levels(signal: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, float]:
    """Return rising levels and the lowest one at which at least half of the labels are positive."""
    levels = np.unique(signal)
    if len(levels) > MAX_LEVELS:
        levels = np.unique(np.quantile(signal, np.linspace(0, 1, MAX_LEVELS), method="lower"))
    if not len(levels):
        return np.zeros(1, np.float32), 0.0
    bucket = np.searchsorted(levels, signal, side="right") - 1
    rows = np.bincount(bucket, minlength=len(levels))
    share = np.bincount(bucket, weights=label, minlength=len(levels)) / np.maximum(rows, 1)
    liked = np.flatnonzero(share >= 0.5)
    return levels.astype(np.float32), float(levels[liked[0]] if len(liked) else levels[-1])
