"""The response store: every answer of a language model that was paid for, keyed by its content.

Key = sha256 of the model's identity and the request (messages with image hashes, sampling, seed,
output schema). What an upgrade changes without changing the answer's meaning (engine kind, library
versions, template revision) is recorded beside the key, so that an upgrade does not bill again.

Each answer that is read is proven by its checksum; one that fails counts as absent, so that it is
asked again, and a damaged segment gives what of it can be proven.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .formats import ANSWERS, FormatError, StoreError
from .journal import publish_left
from .rows import (
    ASKED,
    REPEATING,
    SCHEMA,
    Answer,
    answer_sum,
    old_checksum,
    response_key,
)
from .segments import Segment, SegmentFolder
from .writer import Writer

__all__ = ["SCHEMA", "Answer", "ResponseStore", "Writer", "response_key"]
_log = logging.getLogger(__name__)
_READ = ("text", "finish_reason", "tokens_in", "tokens_out", "checksum")
_HEX = np.full(256, 255, np.uint8)
_HEX[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


class _Wanted:
    """Keys to find, as sorted numbers; ``_near`` leaves out most rows of others quickly."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._names = list(keys)
        digits = bytes.fromhex("".join([key[:32] for key in self._names]))
        pairs = np.frombuffer(digits, ">u8").astype(np.uint64).reshape(-1, 2)
        self._order = np.argsort(pairs[:, 0], kind="stable")
        self.high, self.low = pairs[self._order, 0], pairs[self._order, 1]
        bits = min(26, max(10, len(self._names).bit_length() + 5))
        self._shift = np.uint64(64 - bits)
        self._near = np.zeros(1 << bits, bool)
        self._near[self.high >> self._shift] = True

    def __len__(self) -> int:
        return len(self._names)

    def keys(self, places: np.ndarray) -> list[str]:
        """Return the key at each place in the order of their numbers."""
        return [self._names[i] for i in self._order[places].tolist()]

    def match(self, high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (rows, places): the rows of a segment that hold the wanted key at each place."""
        rows = np.flatnonzero(self._near[high >> self._shift])
        high, low = high[rows], low[rows]
        place = np.searchsorted(self.high, high)
        place[place == len(self.high)] = 0
        same = self.high[place] == high
        rows, place, high, low = rows[same], place[same], high[same], low[same]
        while True:  # several wanted keys may share their first 64 bits
            after = np.minimum(place + 1, len(self.high) - 1)
            move = (self.low[place] != low) & (self.high[after] == high) & (after > place)
            if not move.any():
                break
            place[move] += 1
        same = self.low[place] == low
        return rows[same], place[same]


class ResponseStore:
    """Answers in one folder. Many processes may read and write it at once."""

    def __init__(self, folder: Path | str) -> None:
        self.segments = SegmentFolder(folder, SCHEMA, version=ANSWERS, repeating=REPEATING)
        self._keys: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}
        self._told: set[Path] = set()
        self._newer: FormatError | None = None
        try:
            publish_left(self.segments, self.known)
        except FormatError as error:
            self._newer = error  # answers may lie there: told before anything is asked again

    def lookup(self, keys: Iterable[str]) -> dict[str, Answer]:
        """Return the stored answers to ``keys``; a key that occurs twice has its first answer.

        An answer whose checksum fails is not returned.
        """
        return self._retried(self._lookup, keys) if (keys := set(keys)) else {}

    def known(self, keys: Iterable[str]) -> set[str]:
        """Return those of ``keys`` that have an answer, without reading the answers."""
        return self._retried(self._known, keys) if (keys := set(keys)) else set()

    def records(self, keys: Iterable[str]) -> list[dict[str, Any]]:
        """Return everything that is stored about ``keys``: request, model, libraries, created."""
        return self._retried(self._records, keys) if (keys := set(keys)) else []

    def _retried(self, work: Any, keys: set[str]) -> Any:
        if self._newer is not None:
            raise self._newer
        wanted = _Wanted(keys)
        for _ in range(20):
            try:
                return work(wanted)
            except FileNotFoundError:  # a merge replaced a segment meanwhile
                continue
        raise StoreError(f"{self.segments.folder}: segments keep vanishing; stop the merge")

    def _known(self, wanted: _Wanted) -> set[str]:
        found = np.zeros(len(wanted), bool)
        for _, _, places in self._hits(wanted):
            found[places] = True
        return set(wanted.keys(np.flatnonzero(found)))

    def _lookup(self, wanted: _Wanted) -> dict[str, Answer]:
        found: dict[str, Answer] = {}
        have = np.zeros(len(wanted), bool)
        for segment, rows, places in self._hits(wanted):
            new = np.flatnonzero(~have[places])
            if not len(new):
                continue
            rows, places = rows[new], places[new]
            names = wanted.keys(places)
            have[places] = True
            bad = 0
            for key, row in zip(names, self._rows(segment, rows, _READ), strict=True):
                if key not in found:
                    answer = _proven(key, *row)
                    if answer is None:
                        bad += 1
                    else:
                        found[key] = answer
            if bad:
                bad -= self._old(segment, rows, names, found)
                have[[i for i, k in zip(places, names, strict=True) if k not in found]] = False
            if bad:
                self._tell(segment, f"{bad} rows do not match their checksums")
        return found

    def _old(
        self, segment: Segment, rows: np.ndarray, names: list[str], found: dict[str, Answer]
    ) -> int:
        """Add rows of format 1, whose checksum spans the request; return how many were proven."""
        lacking = [i for i, name in enumerate(names) if name not in found]
        before = len(found)
        columns = (*_READ, *ASKED)
        parts = self._rows(segment, rows[lacking], columns)
        for i, part in zip(lacking, parts, strict=True):
            row = {name: _text(value) for name, value in zip(columns, part, strict=True)}
            row["key"] = names[i]
            if len(row["checksum"] or "") == 16 and old_checksum(row) == row["checksum"]:
                found.setdefault(names[i], Answer._make(row[n] for n in Answer._fields))
        return len(found) - before

    def _records(self, wanted: _Wanted) -> list[dict[str, Any]]:
        first: dict[str, dict[str, Any]] = {}
        for segment, rows, places in self._hits(wanted):
            try:
                table = self.segments.read_rows(segment, rows)
            except FormatError:
                raise
            except StoreError:  # damaged: what can be proven of it
                table = self._table(segment, SCHEMA.names).take(rows)
            for key, row in zip(wanted.keys(places), _decoded(table), strict=True):
                if row is not None:
                    first.setdefault(key, row)
        return list(first.values())

    def _hits(self, wanted: _Wanted) -> Iterator[tuple[Segment, np.ndarray, np.ndarray]]:
        for segment in self.segments.segments():
            try:
                rows, places = wanted.match(*self._numbers(segment))
            except FormatError:
                raise
            except StoreError as error:  # not even its footer can be read
                self._tell(segment, str(error))
                continue
            if len(rows):
                yield segment, rows, places

    def _numbers(self, segment: Segment) -> tuple[np.ndarray, np.ndarray]:
        """Return the first and second 64 bits of each row's key; kept as long as the file is."""
        state = segment.path.stat()
        name = (segment.path, state.st_ino, state.st_mtime_ns, state.st_size)
        if name not in self._keys:
            table = self._table(segment, ["key64", "low64"], proven=False)
            if table["low64"].null_count or table["key64"].null_count:
                pair = _from_digits(self._table(segment, ["key"])["key"])
            else:
                pair = table["key64"].to_numpy(), table["low64"].to_numpy()
            self._keys[name] = pair
        return self._keys[name]

    def _rows(
        self, segment: Segment, rows: np.ndarray, columns: Sequence[str]
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the values of some rows; texts as bytes."""
        table = self._table(segment, columns)
        if len(rows) and rows[-1] >= len(table):
            raise FileNotFoundError(segment.path)  # it was replaced since its keys were read
        if len(rows) != len(table):
            table = table.take(rows)
        raw = [c.cast(pa.binary()) if pa.types.is_string(c.type) else c for c in table.columns]
        return zip(*(c.to_pylist() for c in raw), strict=True)

    def _table(
        self, segment: Segment, columns: Sequence[str], *, proven: bool = True
    ) -> pa.Table:
        try:
            return self.segments.read(segment, columns, verify=proven)
        except FormatError:
            raise
        except StoreError as error:
            table, _ = self.segments.salvage(segment, columns)
            self._tell(segment, str(error))
            return table

    def _tell(self, segment: Segment, problem: str) -> None:
        if segment.path not in self._told:
            self._told.add(segment.path)
            _log.warning("%s is damaged (%s); what cannot be proven is asked again; see "
                         "`llmers store verify`", segment.path, problem)  # fmt: skip

    def writer(
        self, *, flush_rows: int = 500, flush_seconds: float = 30.0, journal: bool = False
    ) -> Writer:
        """Return a context manager whose ``put`` costs at most one flush when the process dies.

        With a ``journal`` it costs nothing: the next ``ResponseStore`` of the folder finds what was
        put. It is for answers that are paid for.
        """
        return Writer(self.segments, flush_rows, flush_seconds, journal=journal)

    def files(self) -> list[Path]:
        """Return the visible segments, for SQL over the store."""
        return [s.path for s in self.segments.segments()]

    def stats(self) -> dict[str, Any]:
        """Return counts of segments, bytes, rows, keys and tokens, and each group's share."""
        from .usage import usage

        return usage(self.segments)

    def verify(self) -> list[str]:
        """Return what is wrong, one line per fault; empty when every row is as it was written."""
        from .salvage import examine

        return [line for _, damage, _ in examine(self.segments) for line in damage.lines()]

    def compact(self, *, target_rows: int = 100_000) -> int:
        """Merge small segments; return how many files went. Safe beside readers and writers."""
        return self.segments.merge(target_rows=target_rows)


def _proven(
    key: str, text: bytes, finish: bytes, read: int, written: int, checksum: bytes
) -> Answer | None:
    """Return the answer of a row of format 2 if its checksum holds."""
    if None in (text, finish, read, written, checksum) or len(checksum) != 32:
        return None
    if answer_sum(key.encode(), text, finish, read, written).encode() != checksum[:16]:
        return None
    return Answer(key, text.decode(), finish.decode(), read, written)


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _decoded(table: pa.Table) -> list[dict[str, Any] | None]:
    """Return the rows of a table; None where a damaged one holds what is no time or no text."""
    try:
        return table.to_pylist()
    except (OverflowError, ValueError):  # the latter of bytes that are no text
        if len(table) == 1:
            return [None]
        return [row for at in range(len(table)) for row in _decoded(table.slice(at, 1))]


def _from_digits(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return both numbers of each key; zero where a damaged key is not 32 digits and more."""
    raw = column.cast(pa.binary()).to_pylist()
    whole = b"".join(key[:32] if key and len(key) >= 32 else b"0" * 32 for key in raw)
    digits = _HEX[np.frombuffer(whole, np.uint8)].reshape(-1, 32)
    digits[(digits > 15).any(1)] = 0
    packed = (digits[:, ::2] << 4) | digits[:, 1::2]
    pairs = np.ascontiguousarray(packed).view(">u8").astype(np.uint64)
    return np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
