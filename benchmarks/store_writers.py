"""Eight processes write answers at once: the response store beside SQLite in WAL mode.

    python benchmarks/store_writers.py [--writers 8] [--rows 5000]

Each writer makes its rows durable every 500 answers (both wait for the disk once; the names of our
files are synced at the end, at the latest after 30 seconds). A quarter of the keys are
written by all, as where several runs ask the same question; answers that cost money are noted in a
journal one by one as well. Prints rows per second of wall time
from the common start to the last writer's end, and checks that no row is lost and every answer can
be proven.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sqlite3
import tempfile
import time
from pathlib import Path

from llmers_pipelines.store.responses import ResponseStore, response_key

FLUSH = 500
INSTRUCTIONS = "You write catalog knowledge for a recommender system. " * 12
ANSWER = "A quiet place by the sea, with readers of every age. " * 8


def rows(who: int, count: int):
    """Yield (request, answer) of one writer; every fourth question is asked by all."""
    for n in range(count):
        asked = f"shared {n}" if n % 4 == 0 else f"{who} {n}"
        yield f"{INSTRUCTIONS}<item>{asked}</item>", f"{ANSWER}{asked}"


def ours(place: str, who: int, count: int, start, *, journal: bool = False) -> None:
    with ResponseStore(place).writer(flush_rows=FLUSH, journal=journal) as writer:
        start.wait()
        for request, answer in rows(who, count):
            writer.put(text=answer, finish_reason="stop", request=request, identity="m")


def paid(place: str, who: int, count: int, start) -> None:
    ours(f"{place}-paid", who, count, start, journal=True)


def sqlite(place: str, who: int, count: int, start) -> None:
    base = sqlite3.connect(f"{place}.db", timeout=600)
    base.execute("pragma synchronous = full")
    start.wait()
    waiting = []
    for request, answer in rows(who, count):
        waiting.append((response_key("m", request), request, answer))
        if len(waiting) == FLUSH:
            with base:
                base.executemany("insert or ignore into t values (?, ?, ?)", waiting)
            waiting = []
    with base:
        base.executemany("insert or ignore into t values (?, ?, ?)", waiting)


def timed(work, place: str, writers: int, count: int) -> float:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(writers + 1)
    jobs = [context.Process(target=work, args=(place, who, count, start)) for who in range(writers)]
    for job in jobs:
        job.start()
    start.wait()
    began = time.perf_counter()
    for job in jobs:
        job.join()
    if any(job.exitcode for job in jobs):
        raise AssertionError(f"a writer failed: {[job.exitcode for job in jobs]}")
    return time.perf_counter() - began


def check(place: str, expected: dict[str, str], total: int) -> None:
    """Raise ``AssertionError`` where an answer is lost, changed, unproven or left in a journal."""
    store = ResponseStore(place)
    found = {k: a.text for k, a in store.lookup(expected).items()}
    if found != expected:
        raise AssertionError(f"lost: {len(expected) - len(found)} in {place}")
    if (faults := store.verify()) or (left := list(Path(place).glob("journal-*"))):
        raise AssertionError((faults or left)[0])
    segments = store.segments
    stored = sum(len(segments.read(s, ["key64"])) for s in segments.segments())
    if stored != total:
        raise AssertionError(f"{stored} rows stored, {total} written")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--rows", type=int, default=5000)
    given = parser.parse_args()
    expected = {response_key("m", request): answer for who in range(given.writers)
                for request, answer in rows(who, given.rows)}  # fmt: skip
    total = given.writers * given.rows
    with tempfile.TemporaryDirectory() as name:
        place = str(Path(name) / "store")
        base = sqlite3.connect(f"{place}.db")
        base.execute("pragma journal_mode = wal")
        base.execute("create table t (key text primary key, request text, text text)")
        base.commit()
        speed = {}
        for kind, work in (("response store", ours), ("response store with its journal", paid),
                           ("SQLite, WAL", sqlite)):  # fmt: skip
            speed[kind] = total / timed(work, place, given.writers, given.rows)
        check(place, expected, total)
        check(f"{place}-paid", expected, total)
        if dict(base.execute("select key, text from t")) != expected:
            raise AssertionError("SQLite lost an answer")
    print(f"{given.writers} writers, {total:,} rows, {len(expected):,} keys; none lost\n")
    for kind, rate in speed.items():
        print(f"{kind}: {rate:,.0f} rows/s")
    print(f"ratio: {speed['response store'] / speed['SQLite, WAL']:.2f}")


if __name__ == "__main__":
    main()
