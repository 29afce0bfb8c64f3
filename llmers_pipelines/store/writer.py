"""Writes answers into a store: buffered, flushed as segments, and noted where they cost money."""

from __future__ import annotations

import logging
import time
from operator import itemgetter
from types import TracebackType
from typing import Any

from .journal import Journal
from .refused import keep_refused, table_of
from .rows import (
    BESIDE,
    MOST_TOKENS,
    answer_sum,
    beside_sum,
    encodable,
    key_numbers,
    response_key,
    storable,
)
from .segments import SegmentFolder

UNJOURNALED_ROWS = 10  # a flush of paid answers where no journal can be written
_TEXTS = frozenset((str, type(None)))
_log = logging.getLogger(__name__)


class Writer:
    """Buffers answers and publishes a segment per ``flush_rows`` or ``flush_seconds``."""

    def __init__(
        self, segments: SegmentFolder, flush_rows: int, flush_seconds: float, *,
        journal: bool = False,
    ) -> None:  # fmt: skip
        if flush_rows < 1:
            raise ValueError(f"flush_rows = {flush_rows}; at least 1 is needed")
        self._segments = segments
        self._flush_rows = flush_rows
        self._flush_seconds = flush_seconds
        self._rows: list[tuple[Any, ...]] = []
        self._since = 0.0
        self._settled = time.monotonic()
        self._noting = journal
        self._journal: Journal | None = None

    def put(self, *, text: str, finish_reason: str, request: str, identity: str,
            tokens_in: int = 0, tokens_out: int = 0, **beside: Any) -> str:
        """Add one answer and return its key. ``beside``: engine, model, libraries, task, ..."""
        key = response_key(identity, request)
        created = time.time_ns() // 1000
        told = tuple([beside.get(name) for name in BESIDE])
        if not _TEXTS.issuperset(map(type, told)):
            told = tuple([None if value is None else str(value) for value in told])
        if not (0 <= tokens_in <= MOST_TOKENS and 0 <= tokens_out <= MOST_TOKENS):
            tokens_in, tokens_out = storable(tokens_in), storable(tokens_out)
        raw = text.encode("utf-8", "replace")
        first = answer_sum(key.encode(), raw, finish_reason.encode(), tokens_in, tokens_out)
        self._rows.append((
            key, *key_numbers(key), encodable(text), finish_reason, tokens_in, tokens_out, request,
            identity, *told, created, first + beside_sum(first, created, told),
        ))  # fmt: skip
        if len(self._rows) == 1:
            self._since = time.monotonic()
        if self._noting:
            self._note(self._rows[-1])
        if len(self._rows) >= self._flush_rows or self.seconds_buffered >= self._flush_seconds:
            self.flush()
        return key

    def _note(self, row: tuple[Any, ...]) -> None:
        try:
            if self._journal is None:
                self._journal = Journal.begin(self._segments.folder)
            self._journal.append(row)
        except OSError as error:
            _log.warning("%s: no journal can be written (%s); answers are flushed by %d instead",
                         self._segments.folder, error, UNJOURNALED_ROWS)  # fmt: skip
            self._noting = False
            self._flush_rows = min(self._flush_rows, UNJOURNALED_ROWS)
            self.flush()

    @property
    def seconds_buffered(self) -> float:
        return time.monotonic() - self._since if self._rows else 0.0

    def flush(self) -> None:
        if self._rows:
            rows = sorted(self._rows, key=itemgetter(0))  # stable: the first of equals leads
            table, refused = table_of(rows)
            if refused:
                keep_refused(self._segments.folder, refused)
            # The content is on the disk either way; the name follows in flush_seconds at most.
            now = time.monotonic()
            settle = now - self._settled >= self._flush_seconds
            self._settled = now if settle else self._settled
            if len(table):
                self._segments.publish(table, settle=settle)
            self._rows = []
            if self._journal is not None:
                self._journal.clear()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        # Also after an error: what was answered was paid for.
        try:
            self.flush()
            self._segments.sync()
        finally:
            if self._journal is not None:
                self._journal.close(stored=not self._rows)
