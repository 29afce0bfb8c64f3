"""What is known of pictures: which address holds which bytes, and which pixels bytes become.

One SQLite file beside the fetched files; several processes may share it.
"""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

from ..store.sqlite_file import write_ahead

_TABLES = """
CREATE TABLE IF NOT EXISTS urls (
    url TEXT PRIMARY KEY, sha256 TEXT, etag TEXT, fetched REAL, changes INTEGER, error TEXT);
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT);
CREATE TABLE IF NOT EXISTS pixels (
    source TEXT, how TEXT, sha256 TEXT, width INTEGER, height INTEGER, error TEXT,
    PRIMARY KEY (source, how));
"""


@dataclass(frozen=True)
class Address:
    """What an address gave last. ``sha256`` "" with ``error``: it never gave a picture.

    ``changes``: how often its content changed after it was first fetched.
    """

    sha256: str
    etag: str = ""
    fetched: float = 0.0  # seconds since 1970
    changes: int = 0
    error: str = ""


@dataclass(frozen=True)
class Pixels:
    """What bytes decode to; ``error`` says why they do not."""

    sha256: str
    width: int
    height: int
    error: str = ""


class ImageIndex:
    """The three tables. Made when something is first written or looked up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._own = threading.local()  # a connection per thread

    def _all(self, sql: str, values: tuple[object, ...]) -> list[tuple]:
        db = getattr(self._own, "db", None)
        if db is None:
            db = self._own.db = self._opened()
        return db.execute(sql, values).fetchall()

    def _opened(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        try:
            write_ahead(db)
            db.execute("PRAGMA synchronous = NORMAL")
            for statement in filter(str.strip, _TABLES.split(";")):
                db.execute(statement)  # waits for others, unlike a script
        except sqlite3.Error:
            db.close()
            raise
        return db

    def address(self, url: str) -> Address | None:
        found = self._all(
            "SELECT sha256, etag, fetched, changes, error FROM urls WHERE url = ?", (url,)
        )
        return Address(*found[0]) if found else None

    def put_address(self, url: str, address: Address) -> None:
        a = address
        self._all("INSERT OR REPLACE INTO urls VALUES (?, ?, ?, ?, ?, ?)",
                  (url, a.sha256, a.etag, a.fetched, a.changes, a.error))  # fmt: skip

    def file(self, path: str, size: int, mtime_ns: int) -> str:
        """Return the hash of a file that has not been touched since, or ""."""
        found = self._all(
            "SELECT sha256 FROM files WHERE path = ? AND size = ? AND mtime_ns = ?",
            (path, size, mtime_ns),
        )
        return found[0][0] if found else ""

    def put_file(self, path: str, size: int, mtime_ns: int, sha256: str) -> None:
        self._all(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", (path, size, mtime_ns, sha256)
        )

    def pixels(self, source: str, how: str) -> Pixels | None:
        """Return what the bytes ``source`` become under the bounds and decoder ``how``."""
        found = self._all(
            "SELECT sha256, width, height, error FROM pixels WHERE source = ? AND how = ?",
            (source, how),
        )
        return Pixels(*found[0]) if found else None

    def put_pixels(self, source: str, how: str, pixels: Pixels) -> None:
        p = pixels
        self._all("INSERT OR REPLACE INTO pixels VALUES (?, ?, ?, ?, ?, ?)",
                  (source, how, p.sha256, p.width, p.height, p.error))  # fmt: skip
