"""The split protocols: which rows train, which validate, which test.

Each takes a log sorted by user and time and returns a part per row, int8[R]: TRAIN, VALID, TEST,
HISTORY, or DROPPED, with facts for the report.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .log import Log, id_draws
from .schema import DataError
from .split_spec import SplitSpec
from .training import HISTORY, TEST, TRAIN, VALID

DROPPED = -1
_PARTS = {"train": TRAIN, "valid": VALID, "test": TEST, "drop": DROPPED}
_USUAL = {
    "train": "train", "training": "train", "valid": "valid", "validation": "valid", "val": "valid",
    "dev": "valid", "test": "test",
}  # fmt: skip

Facts = dict[str, object]


def leave_one_out(log: Log, spec: SplitSpec, table: pa.Table) -> tuple[np.ndarray, Facts]:
    """Last row of each user to test, second last to validation, the rest to training.

    Users with fewer than ``min_length`` rows give training rows only; they are counted.
    """
    from_end = np.repeat(log.lengths, log.lengths) - log.place()
    long = np.repeat(log.lengths >= spec.min_length, log.lengths)
    part = np.full(len(log), TRAIN, np.int8)
    part[long & (from_end == 1)] = TEST
    part[long & (from_end == 2)] = VALID
    return part, {"users_too_short": int((log.lengths < spec.min_length).sum())}


def by_time(log: Log, spec: SplitSpec, table: pa.Table) -> tuple[np.ndarray, Facts]:
    """One global cutoff pair: train < t_v <= validation < t_c <= test.

    Cutoffs are given moments, or the moments at which the training and validation shares of all
    rows are reached; rows of one moment stay together, in the later part.
    """
    if log.clock == "none":
        raise DataError(
            f"split {spec.name!r}: protocol 'time' needs a timestamp; map one under "
            "[interactions.columns] or choose another protocol"
        )
    if spec.valid_from:
        t_v, t_c = _moment(spec.valid_from, spec), _moment(spec.test_from, spec)
        if t_v >= t_c:
            raise DataError(
                f"split {spec.name!r}: valid_from {spec.valid_from} must lie before test_from "
                f"{spec.test_from}"
            )
    else:
        at = np.cumsum(spec.shares)[:2] * len(log)
        at = np.minimum(np.round(at).astype(np.int64), len(log) - 1)
        t_v, t_c = np.partition(log.time, at)[at]
    part = np.where(log.time < t_v, TRAIN, np.where(log.time < t_c, VALID, TEST))
    return part.astype(np.int8), {"cutoffs": {"valid_from": int(t_v), "test_from": int(t_c)}}


def _moment(text: str, spec: SplitSpec) -> int:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise DataError(
            f"split {spec.name!r}: {text!r} is no moment; write ISO 8601 like 2015-06-01 or "
            "seconds since 1970"
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def given(log: Log, spec: SplitSpec, table: pa.Table) -> tuple[np.ndarray, Facts]:
    """The parts that a column of the data set states; validation is cut from training if absent."""
    if spec.column not in table.column_names:
        raise DataError(
            f"split {spec.name!r} reads column {spec.column!r}, which the interactions lack; "
            f"columns: {', '.join(table.column_names)}"
        )
    coded = pc.dictionary_encode(pc.cast(table[spec.column], pa.string()).combine_chunks())
    words = coded.dictionary.to_pylist()
    meaning = spec.values or _USUAL
    strange = [w for w in words if (w if spec.values else w.lower()) not in meaning]
    if strange:
        raise DataError(
            f"split {spec.name!r}: column {spec.column!r} holds {strange[:5]}, which stand for no "
            f'part; add values = {{ {strange[0]!r} = "train", ... }} to [splits.{spec.name}]'
        )
    parts = [_PARTS[meaning[w if spec.values else w.lower()]] for w in words]
    codes = np.asarray(pc.fill_null(coded.indices, len(words)))
    part = np.array([*parts, DROPPED], np.int8)[codes][log.row]
    if (part == VALID).any() or not spec.valid_share:
        return part, {"valid_from_train": 0.0}
    train = part == TRAIN
    if spec.valid_by == "hash":
        part[train & (log.hashes(spec.seed, "valid") < spec.valid_share)] = VALID
    else:
        part[_last_share(log, train, spec.valid_share)] = VALID
    return part, {"valid_from_train": spec.valid_share}


def _last_share(log: Log, train: np.ndarray, share: float) -> np.ndarray:
    """Mark the last ``floor(share * n)``, at least 1, of each user's n >= 2 training rows."""
    count = np.bincount(log.user[train], minlength=len(log.users) + 1)
    wanted = np.where(count >= 2, np.maximum(1, np.floor(share * count)), 0)
    seen = np.cumsum(train)
    before = np.concatenate([[0], seen])[log.start[:-1]]  # training rows of earlier users
    place = seen - np.repeat(before, log.lengths)  # from 1
    return train & (place > (count - wanted)[log.user])


def random_shares(log: Log, spec: SplitSpec, table: pa.Table) -> tuple[np.ndarray, Facts]:
    """Shares of each user's rows (rounded, at least one for training) or of all rows, by hash."""
    draw = log.hashes(spec.seed, "random")
    if spec.by == "row":
        return _by_draw(draw, spec.shares), {}
    order = np.argsort(log.user + draw, kind="stable")  # one key: twice as fast as two
    place = np.empty(len(log), np.int64)
    place[order] = log.place()
    n = np.repeat(log.lengths, log.lengths)
    test = np.minimum(np.floor(spec.shares[2] * n + 0.5), n - 1)
    valid = np.minimum(np.floor(spec.shares[1] * n + 0.5), n - 1 - test)
    part = np.where(place < test, TEST, np.where(place < test + valid, VALID, TRAIN))
    return part.astype(np.int8), {}


def cold_item(log: Log, spec: SplitSpec, table: pa.Table) -> tuple[np.ndarray, Facts]:
    """A share of the items never trains: its rows are halved into validation and test.

    Rows of the other items follow ``shares`` (evaluation convention of GAR, ALDI, LLM-InS).
    """
    seen = np.zeros(len(log.items) + 1, bool)
    seen[log.item] = True
    candidates = np.flatnonzero(seen)
    if spec.cold_by == "time":
        if log.clock == "none":
            raise DataError(f'split {spec.name!r}: cold_by = "time" needs a timestamp')
        first = np.full(len(seen), np.iinfo(np.int64).max)
        np.minimum.at(first, log.item, log.time)
        key = -first[candidates].astype(np.float64)
    else:
        key = id_draws(log.items, spec.seed, "cold")[candidates - 1]
    n_cold = round(spec.cold_share * len(candidates))
    cold = np.zeros(len(seen), bool)
    cold[candidates[np.argsort(key, kind="stable")[:n_cold]]] = True
    draw = log.hashes(spec.seed, "cold rows")
    halves = np.where(draw < 0.5, VALID, TEST)
    part = np.where(cold[log.item], halves, _by_draw(draw, spec.shares))
    return part.astype(np.int8), {"cold_items": np.flatnonzero(cold).tolist()}


def cold_user(log: Log, spec: SplitSpec, table: pa.Table) -> tuple[np.ndarray, Facts]:
    """Of a share of the users the ``first`` rows train and all later ones are held out.

    Half of these users validate and half test, so that the history of a test user is the ``first``
    rows. All rows of the other users train. Users with no more than ``first`` rows cannot be cold;
    they are counted.
    """
    candidates = np.flatnonzero(log.lengths > spec.first)
    n_cold = round(spec.cold_share * len(candidates))
    if n_cold < 2:
        raise DataError(
            f"split {spec.name!r}: protocol 'cold_user' needs users with more than {spec.first} "
            f"rows, two at least that are cold; there are {len(candidates)}, of which cold_share = "
            f"{spec.cold_share:g} takes {n_cold}; lower first or raise cold_share"
        )
    draw = id_draws(log.users, spec.seed, "cold users")[candidates]
    cold = candidates[np.argsort(draw, kind="stable")[:n_cold]]
    held = np.full(len(log.users), TRAIN, np.int8)
    held[cold[0::2]], held[cold[1::2]] = TEST, VALID
    part = np.where(log.place() < spec.first, TRAIN, np.repeat(held, log.lengths))
    return part.astype(np.int8), {
        "users_too_short": len(log.users) - len(candidates),
        "cold_users": {
            "first": spec.first, "valid": len(cold[1::2]), "test": len(cold[0::2]),
        },
    }  # fmt: skip


def _by_draw(draw: np.ndarray, shares: tuple[float, float, float]) -> np.ndarray:
    part = np.where(draw < shares[2], TEST, np.where(draw < shares[2] + shares[1], VALID, TRAIN))
    return part.astype(np.int8)


def cut_history(log: Log, part: np.ndarray, most: int) -> tuple[np.ndarray, Facts]:
    """Mark the first ``min(ceil(n / 2), most)`` of each user's n training rows as HISTORY (KAR).

    They feed prompts and histories; samples start after them.
    """
    train = part == TRAIN
    count = np.bincount(log.user[train], minlength=len(log.users) + 1)
    wanted = np.minimum((count + 1) // 2, most)
    seen = np.cumsum(train)
    before = np.concatenate([[0], seen])[log.start[:-1]]
    place = seen - np.repeat(before, log.lengths)  # from 1
    part = np.where(train & (place <= wanted[log.user]), HISTORY, part).astype(np.int8)
    return part, {"history_rows": int((part == HISTORY).sum())}


RUN: dict[str, Callable[[Log, SplitSpec, pa.Table], tuple[np.ndarray, Facts]]] = {
    "leave_one_out": leave_one_out,
    "time": by_time,
    "given": given,
    "random": random_shares,
    "cold_item": cold_item,
    "cold_user": cold_user,
}
