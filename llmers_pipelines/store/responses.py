"""The response store: every answer of a language model that was paid for, keyed by its content.

Key = sha256 of the model's identity and the request (messages with image hashes, sampling, seed,
output schema). What an upgrade changes without changing the answer's meaning (engine kind, library
versions, template revision) is recorded beside the key, so that an upgrade does not bill again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from .segments import Segment, SegmentFolder, StoreError

SCHEMA = pa.schema([
    ("key", pa.string()),  # 64 hexadecimal digits
    ("key64", pa.uint64()),  # the first 16 of them as a number: what the anti-join compares
    ("text", pa.string()),  # the raw answer
    ("finish_reason", pa.string()),
    ("tokens_in", pa.int32()),
    ("tokens_out", pa.int32()),
    ("request", pa.string()),  # canonical JSON: messages, sampling, seed, schema
    ("identity", pa.string()),  # weights + adapter + tokenizer
    ("engine", pa.string()),
    ("model", pa.string()),
    ("libraries", pa.string()),  # JSON object name -> version
    ("task", pa.string()),
    ("prompt_revision", pa.string()),
    ("row_id", pa.string()),  # the first row that asked
    ("created", pa.timestamp("us", tz="UTC")),
    ("checksum", pa.string()),
])  # fmt: skip
_ANSWER = ("key", "text", "finish_reason", "tokens_in", "tokens_out")
_CHECKED = (*_ANSWER, "request", "identity")


def response_key(identity: str, request: str) -> str:
    """Return the key of ``request`` (canonical JSON) asked of the model ``identity``."""
    if "\n" in identity:
        raise ValueError(f"the identity {identity!r} holds a line break, which ends it in a key")
    return hashlib.sha256(f"{identity}\n{request}".encode()).hexdigest()


class Answer(NamedTuple):
    """A stored answer. ``text`` is raw: parsing belongs to the prompt task."""

    key: str
    text: str
    finish_reason: str
    tokens_in: int
    tokens_out: int


class Answers(Mapping[str, Answer]):
    """Found answers by key; ``table`` holds them as columns (key, text, finish_reason, ...)."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        rows = map(Answer._make, zip(*(table[name].to_pylist() for name in _ANSWER), strict=True))
        self._row = {row.key: row for row in rows}

    def __getitem__(self, key: str) -> Answer:
        return self._row[key]

    def __contains__(self, key: object) -> bool:
        return key in self._row

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)


class ResponseStore:
    """Answers in one folder. Many processes may read and write it at once."""

    def __init__(self, folder: Path | str) -> None:
        self.segments = SegmentFolder(folder, SCHEMA)
        self._keys: dict[Path, np.ndarray] = {}  # segments are immutable, so this never goes stale

    def lookup(self, keys: Iterable[str]) -> Answers:
        """Return the stored answers to ``keys``; a key that occurs twice has its first answer."""
        return Answers(self._find(keys, _ANSWER))

    def known(self, keys: Iterable[str]) -> set[str]:
        """Return those of ``keys`` that have an answer, without reading the answers."""
        return set(self._find(keys, ("key",))["key"].to_pylist())

    def records(self, keys: Iterable[str]) -> list[dict[str, Any]]:
        """Return everything that is stored about ``keys``: request, model, libraries, created."""
        return self._find(keys, SCHEMA.names).to_pylist()

    def _find(self, keys: Iterable[str], columns: Sequence[str]) -> pa.Table:
        """Return ``columns`` (key among them) of the first stored row of each key."""
        wanted = set(keys)
        if not wanted:
            return SCHEMA.empty_table().select(columns)
        digits = bytes.fromhex("".join([key[:16] for key in wanted]))
        numbers = np.sort(np.frombuffer(digits, ">u8").astype(np.uint64))
        for _ in range(20):
            try:
                return self._join(wanted, numbers, columns)
            except FileNotFoundError:  # a merge replaced a segment meanwhile
                continue
        raise StoreError(f"{self.segments.folder}: segments keep vanishing; stop the merge")

    def _join(self, wanted: set[str], numbers: np.ndarray, columns: Sequence[str]) -> pa.Table:
        parts = []
        for segment in self.segments.segments():
            own = self._segment_keys(segment)
            place = np.searchsorted(numbers, own)
            place[place == len(numbers)] = 0
            rows = np.flatnonzero(numbers[place] == own)
            if len(rows):
                table = self.segments.read(segment, columns)
                parts.append(table if len(rows) == len(table) else table.take(rows))
        if not parts:
            return SCHEMA.empty_table().select(columns)
        found = pa.concat_tables(parts)
        keys = found["key"].to_pylist()
        if len(set(keys)) == len(keys) and wanted.issuperset(keys):
            return found
        first = {k: row for row, k in reversed(list(enumerate(keys))) if k in wanted}
        rows = np.array(sorted(first.values()), np.int64)
        return found.take(rows)

    def _segment_keys(self, segment: Segment) -> np.ndarray:
        keys = self._keys.get(segment.path)
        if keys is None:
            keys = self.segments.read(segment, ["key64"])["key64"].to_numpy()
            self._keys[segment.path] = keys
        return keys

    def writer(self, *, flush_rows: int = 500, flush_seconds: float = 30.0) -> Writer:
        """Return a context manager whose ``put`` costs at most one flush when the process dies."""
        return Writer(self.segments, flush_rows, flush_seconds)

    def files(self) -> list[Path]:
        """Return the visible segments, for SQL over the store."""
        return [s.path for s in self.segments.segments()]

    def stats(self) -> dict[str, Any]:
        """Return counts: segments, bytes, rows, keys, tokens, and rows per model and task."""
        parts = self.segments.read_all(["key", "tokens_in", "tokens_out", "model", "task"])
        table = pa.concat_tables([SCHEMA.empty_table().select(
            ["key", "tokens_in", "tokens_out", "model", "task"]), *(t for _, t in parts)])
        groups = table.group_by(["model", "task"]).aggregate([("key", "count")]).to_pylist()
        return {
            "segments": len(parts),
            "bytes": sum(s.path.stat().st_size for s, _ in parts),
            "rows": len(table),
            "keys": len(table["key"].unique()),
            "tokens_in": sum(t or 0 for t in table["tokens_in"].to_pylist()),
            "tokens_out": sum(t or 0 for t in table["tokens_out"].to_pylist()),
            "answers": {
                " | ".join(filter(None, (g["model"], g["task"]))): g["key_count"]
                for g in sorted(groups, key=lambda g: (g["model"] or "", g["task"] or ""))
            },
        }

    def verify(self) -> list[str]:
        """Return what is wrong, one line per fault; empty when every row is as it was written."""
        faults = []
        for segment in self.segments.segments():
            try:
                rows = self.segments.read(segment).to_pylist()
            except StoreError as error:
                faults.append(str(error))
                continue
            for number, row in enumerate(rows):
                where = f"{segment.path}: row {number}, key {row['key']}"
                if row["checksum"] != _checksum(row):
                    faults.append(f"{where}: the row's checksum does not match its content")
                elif row["key"] != response_key(row["identity"], row["request"]):
                    faults.append(f"{where}: the key is not that of its identity and request")
        return faults

    def compact(self, *, target_rows: int = 100_000) -> int:
        """Merge small segments; return how many files went. Safe beside readers and writers."""
        return self.segments.merge(target_rows=target_rows)


class Writer:
    """Buffers answers and publishes a segment per ``flush_rows`` or ``flush_seconds``."""

    def __init__(self, segments: SegmentFolder, flush_rows: int, flush_seconds: float) -> None:
        if flush_rows < 1:
            raise ValueError(f"flush_rows = {flush_rows}; at least 1 is needed")
        self._segments = segments
        self._flush_rows = flush_rows
        self._flush_seconds = flush_seconds
        self._rows: list[dict[str, Any]] = []
        self._since = 0.0

    def put(self, *, text: str, finish_reason: str, request: str, identity: str,
            tokens_in: int = 0, tokens_out: int = 0, **beside: Any) -> str:
        """Add one answer and return its key. ``beside``: engine, model, libraries, task, ..."""
        row = dict.fromkeys(SCHEMA.names)
        key = response_key(identity, request)
        row |= {
            "key": key, "key64": int(key[:16], 16), "text": _encodable(text),
            "finish_reason": finish_reason, "tokens_in": tokens_in, "tokens_out": tokens_out,
            "request": request, "identity": identity, "created": datetime.now(UTC), **beside,
        }  # fmt: skip
        row["checksum"] = _checksum(row)
        if not self._rows:
            self._since = time.monotonic()
        self._rows.append(row)
        if len(self._rows) >= self._flush_rows or self.seconds_buffered >= self._flush_seconds:
            self.flush()
        return key

    @property
    def seconds_buffered(self) -> float:
        return time.monotonic() - self._since if self._rows else 0.0

    def flush(self) -> None:
        if self._rows:
            rows = sorted(self._rows, key=lambda r: r["key"])  # stable: the first of equals leads
            self._segments.publish(pa.table(
                {f.name: pa.array([r[f.name] for r in rows], f.type) for f in SCHEMA}))  # fmt: skip
            self._rows = []

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        # Also after an error: what was answered was paid for.
        self.flush()


def _checksum(row: Mapping[str, Any]) -> str:
    parts = [str(row[name]) for name in _CHECKED]
    content = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _encodable(text: str) -> str:
    """Return ``text`` without lone surrogates, which UTF-8 and so Parquet cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


