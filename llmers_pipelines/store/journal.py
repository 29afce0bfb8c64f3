"""Answers that a run has got and not flushed yet, for the case that its process is killed.

A writer of paid answers appends a line per answer to a journal of its own in the store's folder,
without waiting for the disk: what was written outlives the process, though not a power failure
within ``flush_seconds``. It empties the file after each flush, removes it at the end, and holds a
lock on it meanwhile. Whoever opens the store next finds journals that nobody holds and publishes
their answers as a segment. Answers that were published before the kill are known by their keys.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from io import FileIO
from operator import itemgetter
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from .formats import FormatError, check_format, stamp, stamped
from .refused import keep_refused, table_of
from .rows import SCHEMA, key_numbers
from .segments import SegmentFolder

VERSION = 1
_NAME = re.compile(r"journal-[0-9a-f]{32}\.jsonl")
_LOCK = ".journals.lock"  # held by whoever publishes what was left behind
_TITLE = "llmers.journal"
_written = itemgetter(*[n for n, f in enumerate(SCHEMA) if f.name not in ("key64", "low64")])
_log = logging.getLogger(__name__)
Row = tuple[Any, ...]  # values in the order of SCHEMA


class Journal:
    """The journal of one writer. Its first line is the format; each other one a checksum and a row.

    ``OSError`` where the disk is full (the lines before stay whole), or has no locks.
    """

    def __init__(self, path: Path, file: FileIO, size: int) -> None:
        self.path = path
        self._file = file
        self._head = self._size = size

    @classmethod
    def begin(cls, folder: Path) -> Journal:
        """Return a new journal in ``folder``, locked."""
        folder.mkdir(parents=True, exist_ok=True)
        name = uuid.uuid4().hex
        # It gets its name once it is locked: without its lock it would look left behind.
        hidden, path = folder / f".writing-{name}.tmp", folder / f"journal-{name}.jsonl"
        file = hidden.open("ab", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            head = f"{_TITLE} {stamp(VERSION)}\n".encode()
            file.write(head)
            os.rename(hidden, path)
        except OSError:
            file.close()
            hidden.unlink(missing_ok=True)
            raise
        return cls(path, file, len(head))

    def append(self, row: Row) -> None:
        data = _json(_written(row))
        line = b"%08x %b\n" % (zlib.crc32(data), data)
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
            raise
        self._size += len(line)

    def clear(self) -> None:
        """Forget what was appended: it is stored."""
        self._file.truncate(self._head)
        self._size = self._head

    def close(self, *, stored: bool) -> None:
        """Let go of the journal; it stays where its answers are not ``stored``."""
        if stored:
            self.path.unlink(missing_ok=True)
        self._file.close()


def publish_left(segments: SegmentFolder, known: Callable[[Iterable[str]], set[str]]) -> int:
    """Publish the answers of killed writers below ``segments`` and return how many.

    ``known`` returns those of its keys that are stored. Journals of living writers stay as they
    are. ``FormatError`` for a journal of a newer version; where the folder cannot be written, what
    is left stays for who can.
    """
    if not _journals(segments.folder):
        return 0
    done, newer = 0, None
    try:
        with _alone(segments.folder):
            for path in _journals(segments.folder):
                try:
                    done += _publish(path, segments, known)
                except FormatError as error:
                    newer = error
    except OSError as error:
        _log.warning("%s: answers of a killed run cannot be taken over now: %s",
                     segments.folder, error)  # fmt: skip
    if newer is not None:
        raise newer
    return done


def _publish(
    path: Path, segments: SegmentFolder, known: Callable[[Iterable[str]], set[str]]
) -> int:
    try:
        file = path.open("r+b")  # some file systems lock only what may be written
    except FileNotFoundError:
        return 0  # its writer has ended well
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0  # its writer lives
        rows, torn = _read(path, file.read())
        stored = known(rows)
        new = sorted((r for k, r in rows.items() if k not in stored), key=lambda row: row[0])
        table, refused = table_of(new)
        if refused:
            keep_refused(segments.folder, refused)
        if len(table):
            segments.publish(table)
        path.unlink(missing_ok=True)
    if rows or torn:
        lost = f"; {torn} lines were torn and are lost" if torn else ""
        _log.warning("%s: %d answers of a run that was killed are stored now%s",
                     segments.folder, len(table), lost)  # fmt: skip
    return len(table)


def _read(path: Path, data: bytes) -> tuple[dict[str, Row], int]:
    """Return the rows by key, the first of each, and how many lines are torn."""
    lines = data.split(b"\n")
    head = lines[0].decode("utf-8", "replace").partition(" ")[2]
    check_format(path, "a journal", stamped(head, damaged=VERSION), VERSION)
    rows: dict[str, Row] = {}
    torn = 0
    for line in filter(None, lines[1:]):
        row = _row(line)
        if row is None:
            torn += 1
        else:
            rows.setdefault(row[0], row)
    return rows, torn


def _json(values: Row) -> bytes:
    try:
        return to_json(values)  # a third of what json.dumps takes, which is most of a line's cost
    except ValueError:  # a lone surrogate, which only an escape can hold
        return json.dumps(values).encode()


def _row(line: bytes) -> Row | None:
    said, _, data = line.partition(b" ")
    if said != b"%08x" % zlib.crc32(data):
        return None
    key, *rest = json.loads(data)
    return (key, *key_numbers(key), *rest)


def _journals(folder: Path) -> list[Path]:
    try:
        return sorted(folder / name for name in os.listdir(folder) if _NAME.fullmatch(name))
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process publishes what was left here: afterwards it is stored."""
    with (folder / _LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
