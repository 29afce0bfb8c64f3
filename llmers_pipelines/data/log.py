"""From tables of ids to a log of positions: filters, id maps, order, duplicates, k-core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pandas.util import hash_array

from .rules import parse_rule
from .schema import EVENT, ITEM_ID, POSITION, TIMESTAMP, USER_ID, DataError
from .split_spec import SplitSpec
from .training import IdMap

BLOCK = 1 << 16  # row numbers that are made at once


@dataclass(frozen=True)
class Log:
    """Rows sorted by user, then time, then their order in the table.

    ``user`` int64[R] in 1..U, ``item`` int64[R] in 1..N, ``time`` int64[R]; ``row`` int64[R] is the
    row of the table that a log row came from. ``clock`` is seconds, order or none.
    """

    users: IdMap
    items: IdMap
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    row: np.ndarray
    clock: str

    def __len__(self) -> int:
        return len(self.user)

    @property
    def start(self) -> np.ndarray:
        """Offsets int64[U + 1]: rows of user u are ``start[u - 1]:start[u]``."""
        return np.searchsorted(self.user, np.arange(1, len(self.users) + 2))

    @property
    def lengths(self) -> np.ndarray:
        """Rows per user, int64[U]."""
        return np.diff(self.start)

    def place(self) -> np.ndarray:
        """Place of each row within its user, int64[R], from 0."""
        return np.arange(len(self)) - np.repeat(self.start[:-1], self.lengths)

    def take(self, keep: np.ndarray) -> Log:
        """Return the rows of ``keep`` (bool[R], or row numbers in a new order); id maps stay."""
        keep = np.flatnonzero(keep) if keep.dtype == bool else keep
        return replace(
            self, user=self.user[keep], item=self.item[keep],
            time=self.time[keep], row=self.row[keep],
        )  # fmt: skip

    def hashes(self, seed: int, salt: str = "") -> np.ndarray:
        """Uniform draws float64[R] that depend on ids, time and seed, not on the rows' order."""
        user = hash_words(["", *self.users.ids])[self.user]
        item = hash_words(["", *self.items.ids])[self.item]
        mixed = mix(user ^ mix(item ^ mix(self.time.astype(np.uint64) + salt_of(seed, salt))))
        return uniform(mixed)


def hash_words(words: Sequence[str]) -> np.ndarray:
    """Hash each word on its own to uint64; the same on every machine and in every process."""
    return hash_array(np.array(words, object))


def salt_of(seed: int, salt: str) -> np.uint64:
    """A 64-bit constant for one purpose of one seed."""
    return hash_words([f"{salt}:{seed}"])[0]


def mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64, uint64 -> uint64."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform(hashed: np.ndarray) -> np.ndarray:
    """Return uint64 hashes as float64 in [0, 1)."""
    return (hashed >> np.uint64(11)) * 2.0**-53


def id_draws(ids: IdMap, seed: int, salt: str) -> np.ndarray:
    """Uniform draws float64[n], one per id, independent of the other ids."""
    return uniform(mix(hash_words(ids.ids) ^ salt_of(seed, salt)))


def prepare_log(
    tables: Mapping[str, pa.Table], spec: SplitSpec
) -> tuple[Log, dict[str, int], dict[str, object]]:
    """Return the log of ``spec``, rows dropped by reason, and facts about ids and k-core.

    Raises ``DataError`` when no row is left.
    """
    log = tables["interactions"]
    drops: dict[str, int] = {}
    keep = _wanted(log, spec, drops)
    item, items, user, users = _positions(tables, keep, drops)
    time, clock = _moments(log)
    kept = np.count_nonzero(keep)
    if not kept:
        raise DataError(f"split {spec.name!r}: no interaction is left; dropped: {drops}")
    row = None
    if kept < len(keep):
        row = np.flatnonzero(keep)
        user, item, time = user[row], item[row], time[row]
    order, user = _order(user, time)
    item, time = item[order], time[order]
    result = Log(users, items, user, item, time, order if row is None else row[order], clock)
    del user, item, time, row, order  # each is as long as the log
    if spec.duplicates != "keep":
        before = len(result)
        result = result.take(_one_per_pair(result, last=spec.duplicates == "last"))
        drops["duplicate"] = before - len(result)
    info: dict[str, object] = {}
    if spec.k_core > 1:
        before = len(result)
        result, rounds = k_core(result, spec.k_core)
        drops["k_core"] = before - len(result)
        info["k_core_rounds"] = rounds
        if not len(result):
            raise DataError(
                f"split {spec.name!r}: k_core = {spec.k_core} leaves nothing of {before} "
                "interactions; use a smaller value"
            )
    return compact(result, universe=spec.universe), {k: v for k, v in drops.items() if v}, info


def _wanted(log: pa.Table, spec: SplitSpec, drops: dict[str, int]) -> np.ndarray:
    keep = np.ones(log.num_rows, bool)
    if spec.events:
        if EVENT not in log.column_names:
            raise DataError(
                f"split {spec.name!r} keeps events {list(spec.events)}, but the interactions have "
                "no column 'event'; map one under [interactions.columns]"
            )
        wanted = np.asarray(pc.is_in(log[EVENT], value_set=pa.array(spec.events)))
        drops["other_event"] = int((~wanted).sum())
        keep &= wanted
    if spec.positive:
        positive, _ = parse_rule(spec.positive).holds(log)
        drops["not_positive"] = int((keep & ~positive).sum())
        keep &= positive
    if spec.label:
        _, known = parse_rule(spec.label).holds(log)
        drops["no_label"] = int((keep & ~known).sum())
        keep &= known
    return keep


def _positions(
    tables: Mapping[str, pa.Table], keep: np.ndarray, drops: dict[str, int]
) -> tuple[np.ndarray, IdMap, np.ndarray, IdMap]:
    """Positions 1..n of every row: items in the order of the catalog, users in that of ``users``.

    Rows of items that the catalog lacks lose their place in ``keep``.
    """
    log = tables["interactions"]
    items = tables["items"][ITEM_ID].combine_chunks()
    item = _index(log[ITEM_ID], items)
    drops["unknown_item"] = int((keep & (item == 0)).sum())
    keep &= item > 0
    user, users = _numbered(log[USER_ID])
    if tables.get("users") is not None:
        listed, found = tables["users"][USER_ID].combine_chunks(), users
        users = pa.concat_arrays([listed, users.filter(pc.invert(pc.is_in(users, listed)))])
        user = _index(found, users)[user - 1]
    return item, IdMap(tuple(items.to_pylist())), user, IdMap(tuple(users.to_pylist()))


def _numbered(ids: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Return (int64[R] from 1, the distinct ids in the order in which they first appear)."""
    distinct = pc.unique(ids) if ids.null_count or not ids.num_chunks else None
    if distinct is not None:
        return _index(ids, distinct), distinct
    chunks = pc.dictionary_encode(ids).chunks  # hashes each id once; the chunks share a dictionary
    return _from_one([c.indices for c in chunks]), chunks[-1].dictionary


def _index(ids: pa.ChunkedArray | pa.Array, known: pa.Array) -> np.ndarray:
    found = pc.index_in(ids, value_set=known)
    found = pc.fill_null(found, -1) if found.null_count else found
    return _from_one(found.chunks if isinstance(found, pa.ChunkedArray) else [found])


def _from_one(numbers: Sequence[pa.Array]) -> np.ndarray:
    out = np.empty(sum(map(len, numbers)), np.int64)
    at = 0
    for part in numbers:
        np.add(part.to_numpy(zero_copy_only=False), 1, out=out[at : at + len(part)])
        at += len(part)
    return out


def _moments(log: pa.Table) -> tuple[np.ndarray, str]:
    for column, clock in ((TIMESTAMP, "seconds"), (POSITION, "order")):
        if column in log.column_names:
            return log[column].to_numpy().astype(np.int64, copy=False), clock
    return np.arange(log.num_rows, dtype=np.int64), "none"


def _order(user: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (stable order by user, then time, the users in it): equal moments keep the order of
    the table."""
    if int(time.max()) - int(time.min()) >= 2**63:
        order = np.lexsort((time, user))
        return order, user[order]
    by_time = stable_order(time - time.min(), reuse=True)[0]
    by_user, user = stable_order(user[by_time], reuse=True)
    return by_time[by_user], user


def stable_order(key: np.ndarray, *, reuse: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return (``argsort(key, kind="stable")``, the sorted keys) of int64 keys >= 0.

    Where both fit into 63 bits, keys are sorted with their row number in the low bits, which is
    over 10 times faster than sorting row numbers by key. ``reuse`` lets it overwrite ``key``: at
    ten million rows fresh memory costs as much as the work that is done in it.
    """
    bits = max(len(key) - 1, 1).bit_length()
    if not len(key) or int(key.max()) >> (63 - bits):
        order = np.argsort(key, kind="stable")
        return order, key[order]
    packed = np.left_shift(key, bits, out=key if reuse else None)
    numbers = np.arange(min(len(key), BLOCK))
    for low in range(0, len(packed), BLOCK):
        part = packed[low : low + BLOCK]
        part |= numbers[: len(part)] + low
    packed.sort()
    order = packed & ((1 << bits) - 1)
    packed >>= bits
    return order, packed


def _one_per_pair(log: Log, *, last: bool) -> np.ndarray:
    """Mark the first (or last) row of each user and item."""
    pair = log.user * (len(log.items) + 1)
    pair += log.item
    order, ordered = stable_order(pair, reuse=True)
    new = np.ones(len(pair), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    again = np.roll(~new, -1) if last else ~new  # rows that have an equal one on the other side
    keep = np.ones(len(pair), bool)
    keep[order[again]] = False
    return keep


def k_core(log: Log, k: int) -> tuple[Log, int]:
    """Drop users and items with fewer than ``k`` rows until none is left; return the rounds too."""
    rounds = 0
    while len(log):
        rounds += 1
        often = np.bincount(log.item, minlength=len(log.items) + 1) >= k
        active = np.bincount(log.user, minlength=len(log.users) + 1) >= k
        keep = often[log.item] & active[log.user]
        if keep.all():
            break
        log = log.take(keep)
    return log, rounds


def compact(log: Log, *, universe: str = "catalog") -> Log:
    """Leave out users without rows and, for universe "interactions", items without rows."""
    users, user = _squeeze(log.users, log.user)
    items, item = (log.items, log.item) if universe == "catalog" else _squeeze(log.items, log.item)
    return replace(log, users=users, user=user, items=items, item=item)


def _squeeze(ids: IdMap, positions: np.ndarray) -> tuple[IdMap, np.ndarray]:
    used = np.zeros(len(ids) + 1, bool)
    used[positions] = True
    used[0] = False
    if used[1:].all():
        return ids, positions
    place = np.cumsum(used)
    return IdMap(tuple(v for v, u in zip(ids.ids, used[1:], strict=True) if u)), place[positions]
