"""What was spent on language models, per day and run: one SQLite file that all processes share.

A call is *held* with the most that it can cost before it is made, and *settled* with what it did
cost afterwards. A process that dies in between leaves its hold standing, so a crash counts too
much, never too little; a power failure may take the last second of the file. Money is whole
billionths, rounded up: sums do not drift.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..store.formats import StoreError
from ..store.sqlite_file import Database, named, write_ahead

MEND = ("moves it away and the next run begins a new one; it no longer knows what was spent today, "
        "so lower the day's bounds by that")  # fmt: skip
SYNC_SECONDS = 1.0  # at most this much reaches the disk late; syncing each call costs 20 ms a call
_TABLES = """
CREATE TABLE IF NOT EXISTS spent (
    day TEXT, run TEXT, model TEXT, calls INTEGER, tokens INTEGER, nanos INTEGER,
    PRIMARY KEY (day, run, model));
CREATE TABLE IF NOT EXISTS held (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    day TEXT, run TEXT, model TEXT, calls INTEGER, tokens INTEGER, nanos INTEGER,
    since TEXT DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE IF NOT EXISTS booked (mark TEXT PRIMARY KEY, batch TEXT) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS spent_run ON spent (run);
CREATE INDEX IF NOT EXISTS held_day ON held (day);
CREATE INDEX IF NOT EXISTS held_run ON held (run);
"""


@dataclass(frozen=True)
class Use:
    """Calls, tokens (prompt and answer) and money in billionths. As a bound, 0 = none."""

    calls: int = 0
    tokens: int = 0
    nanos: int = 0

    def __add__(self, other: Use) -> Use:
        return Use(self.calls + other.calls, self.tokens + other.tokens, self.nanos + other.nanos)

    def beyond(self, bound: Use) -> str:
        """Return the first part (calls, tokens, money) that exceeds its bound, or ""."""
        for name in ("calls", "tokens", "nanos"):
            most = getattr(bound, name)
            if most and getattr(self, name) > most:
                return "money" if name == "nanos" else name
        return ""


@dataclass(frozen=True)
class Hold:
    """A place in the ledger for one call that is about to be made."""

    id: int
    day: str
    run: str
    model: str
    most: Use


@dataclass(frozen=True)
class Bill:
    """What one answer cost. ``mark`` is the same whenever the same answer comes again."""

    mark: str
    model: str
    used: Use


@dataclass(frozen=True)
class Refusal:
    """Why a call may not be made. ``waits``: calls that are under way may still leave room."""

    scope: str  # run | day
    part: str  # calls | tokens | money
    spent: Use
    bound: Use
    need: Use
    waits: bool


class Ledger:
    """One file; ``:memory:`` keeps it in this process. Safe for threads and processes."""

    def __init__(self, path: Path | str) -> None:
        self._lock = threading.Lock()
        if str(path) != ":memory:":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(
            str(path), timeout=60, isolation_level=None, check_same_thread=False
        )
        self._synced = 0.0
        self._named = partial(named, path, f"`llmers store verify --quarantine` {MEND}")
        try:
            with self._named():
                write_ahead(self._db)
            with self._change():
                for statement in filter(str.strip, _TABLES.split(";")):
                    self._db.execute(statement)
        except StoreError:
            self._db.close()
            raise

    @contextmanager
    def _change(self) -> Iterator[None]:
        with self._lock, self._named():
            now = time.monotonic()
            due = now - self._synced >= SYNC_SECONDS
            self._db.execute(f"PRAGMA synchronous = {'FULL' if due else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
            if due:
                self._synced = now

    def hold(
        self, day: str, run: str, model: str, most: Use, *, of_run: Use, of_day: Use
    ) -> Hold | Refusal:
        """Set ``most`` aside if spent, held and it stay within both bounds."""
        with self._change():
            for scope, value, bound in (("run", run, of_run), ("day", day, of_day)):
                if bound == Use():
                    continue
                spent, held = self._sum("spent", scope, value), self._sum("held", scope, value)
                if part := (spent + held + most).beyond(bound):
                    alone = (spent + most).beyond(bound)
                    return Refusal(scope, part, spent, bound, most, waits=not alone)
            row = (day, run, model, most.calls, most.tokens, most.nanos)
            cursor = self._db.execute(
                "INSERT INTO held (day, run, model, calls, tokens, nanos) VALUES (?,?,?,?,?,?)", row
            )
            return Hold(int(cursor.lastrowid or 0), day, run, model, most)

    def settle(self, hold: Hold, used: Use) -> None:
        """Book what a held call did cost; ``Use()`` where it was never made."""
        with self._change():
            gone = self._db.execute("DELETE FROM held WHERE id = ?", (hold.id,)).rowcount
            if gone:  # a second settlement of one call would book it twice
                self._book(hold.day, hold.run, hold.model, used)

    def book(self, day: str, run: str, model: str, used: Use) -> None:
        """Book what was spent without a hold."""
        with self._change():
            self._book(day, run, model, used)

    def book_once(self, day: str, run: str, bills: Sequence[Bill]) -> None:
        """Book those of ``bills`` whose mark is not there yet, and leave their marks.

        An interrupted import that is begun anew finds them. ``forget`` takes them away once the
        answers are stored.
        """
        with self._change():
            for bill in bills:
                new = self._db.execute(
                    "INSERT OR IGNORE INTO booked VALUES (?,?)", (bill.mark, run)
                ).rowcount
                if new:
                    self._book(day, run, bill.model, bill.used)

    def forget(self, marks: Iterable[str]) -> None:
        """Take the marks of ``book_once`` away: what they stand for is stored."""
        with self._change():
            self._db.executemany("DELETE FROM booked WHERE mark = ?", [(m,) for m in marks])

    def _book(self, day: str, run: str, model: str, used: Use) -> None:
        if used != Use():
            self._db.execute(
                "INSERT INTO spent VALUES (?,?,?,?,?,?) ON CONFLICT DO UPDATE SET "
                "calls = calls + excluded.calls, tokens = tokens + excluded.tokens, "
                "nanos = nanos + excluded.nanos",
                (day, run, model, used.calls, used.tokens, used.nanos),
            )

    def total(self, *, run: str = "", day: str = "") -> Use:
        """Return what a run or a day has spent, with what is held for it."""
        scope, value = ("run", run) if run else ("day", day)
        with self._lock, self._named():
            return self._sum("spent", scope, value) + self._sum("held", scope, value)

    def _sum(self, table: str, scope: str, value: str) -> Use:
        row = self._db.execute(
            "SELECT coalesce(sum(calls), 0), coalesce(sum(tokens), 0), coalesce(sum(nanos), 0) "
            f"FROM {table} WHERE {scope} = ?",  # both names are this module's own
            (value,),
        ).fetchone()
        return Use(*row)

    def close(self) -> None:
        self._db.close()


def ledger_file(path: Path) -> Database:
    """Return what a check of a ledger needs to know of it."""
    return Database("spending", path, f"--quarantine {MEND}", ("spent", "held"), movable=True)
