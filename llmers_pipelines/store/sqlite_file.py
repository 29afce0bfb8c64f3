"""SQLite files: opened with a message where they are damaged, and checked without being changed.

SQLite has no checksum of its own: its check finds broken structure, keys and indexes, not a
changed number in a row.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .findings import Fault, Look
from .formats import StoreError
from .salvage import set_aside

_BESIDE = ("-wal", "-shm")  # what SQLite keeps next to its file


@dataclass(frozen=True)
class Database:
    """A file to check: what it is, the tables that it must have, and the mend.

    ``movable``: it is made anew by the next run, so that a damaged one may be set aside.
    """

    kind: str
    path: Path
    mend: str
    tables: tuple[str, ...] = ()
    movable: bool = False


def busy(error: sqlite3.Error) -> bool:
    """Say whether another process held the file: waiting helps, the file is whole."""
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


@contextmanager
def named(path: Path | str, mend: str) -> Iterator[None]:
    """Turn SQLite's errors into ``StoreError`` with the file and, where it is damaged, the mend."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.DatabaseError as error:
        kind = getattr(error, "sqlite_errorname", "")
        if kind.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT", "SQLITE_READONLY")):
            raise StoreError(f"{path}: not a whole SQLite file ({error}); {mend}") from error
        held = "another process holds it" if busy(error) else "see that it can be written"
        raise StoreError(f"{path}: SQLite cannot use it ({error}); {held}") from error


def problem_of(database: Database, *, wait: float = 5.0) -> str:
    """Return what is wrong of a file, "" where nothing is or another process holds it."""
    with database.path.open("rb") as file:
        head = file.read(20)
    if head and (head[:16] != b"SQLite format 3\0" or head[18:20] not in (b"\1\1", b"\2\2")):
        return "its first bytes are not those of an SQLite file"
    try:
        found = sqlite3.connect(f"{database.path.absolute().as_uri()}?mode=ro", uri=True,
                                timeout=wait)  # fmt: skip
        try:
            told = [str(row[0]) for row in found.execute("PRAGMA integrity_check(3)")]
            names = {row[0] for row in found.execute("SELECT name FROM sqlite_master")}
        finally:
            found.close()
    except sqlite3.Error as error:
        return "" if busy(error) else f"not a whole SQLite file ({error})"
    if told != ["ok"]:
        return "; ".join(" ".join(line.split()) for line in told)
    lacking = [name for name in database.tables if name not in names]
    return f"it lacks the table {lacking[0]}" if lacking else ""


def audit_databases(look: Look, databases: Iterable[Database]) -> None:
    """Check each file that is there; a movable one that is damaged goes aside."""
    for one in databases:
        if not one.path.is_file():
            continue
        look.report.count("SQLite files")
        problem = problem_of(one)
        if not problem:
            continue
        moved = ""
        if look.aside is not None and one.movable:
            reason = {"path": one.path, "problem": problem}
            moved = str(set_aside(one.path, look.aside / one.kind, reason))
            for end in _BESIDE:  # it belongs to the damaged file and would be read into a new one
                beside = one.path.with_name(one.path.name + end)
                if beside.is_file():
                    beside.replace(Path(moved) / beside.name)
        look.report.faults.append(
            Fault(one.kind, str(one.path), f"{one.path}: {problem}", one.mend, (), moved)
        )


def write_ahead(db: sqlite3.Connection, *, seconds: float = 60.0) -> None:
    """Switch ``db`` to its write-ahead log; wait where another connection makes the file now.

    SQLite's own waiting does not cover the change of the journal's mode. Where the file system has
    no shared memory, SQLite keeps its slower journal.
    """
    ends = time.monotonic() + seconds
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not busy(error) or time.monotonic() > ends:
                raise
        time.sleep(0.02)
