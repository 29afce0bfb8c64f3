"""One million answers written and read: the response store beside SQLite, JSON lines and DuckDB.

    python benchmarks/store_million.py [--rows 1000000] [--journal]

Prints CPU-seconds (one process) and bytes for: writing all answers; asking for all of them again
from a new process (the second run of an asset); finding the missing keys where 1% is new (a changed
catalog). Answers are pseudo-random words of about 400 characters, requests of about 1,000 with a
shared beginning, as item prompts have. Requests are stored by all, checksums by ours alone.
``--journal`` adds the writing of paid answers, each of which is noted before the next one.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from llmers_pipelines.store.responses import ResponseStore, response_key

INSTRUCTIONS = "You write catalog knowledge for a recommender system. " * 12


def corpus(rows: int) -> Iterator[tuple[str, str]]:
    """Yield requests and answers, the same in every call."""
    draw = random.Random(0)
    words = ["".join(draw.choices("aeioubcdfglmnprst", k=draw.randint(3, 9))) for _ in range(5000)]
    texts = [" ".join(draw.choices(words, k=14)) for _ in range(20_000)]
    for n in range(rows):
        asked = " ".join(draw.choices(texts, k=3))
        yield f"{INSTRUCTIONS}<item>{n} {asked}</item>", " ".join(draw.choices(texts, k=4))


def cpu(work: Callable[[], object], repeats: int = 1) -> float:
    best = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


class Ours:
    name, part = "response store", "ours"
    journal = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.part

    def write(self, rows: int) -> None:
        store = ResponseStore(self.folder)
        with store.writer(flush_rows=20_000, flush_seconds=1e9, journal=self.journal) as writer:
            for request, answer in corpus(rows):
                writer.put(text=answer, finish_reason="stop", request=request, identity="m",
                           tokens_in=300, tokens_out=120)  # fmt: skip

    def read(self, keys: list[str]) -> int:
        return len(ResponseStore(self.folder).lookup(keys))

    def missing(self, keys: list[str]) -> int:
        return len(keys) - len(ResponseStore(self.folder).known(keys))


class Paid(Ours):
    """As answers of a metered engine are written."""

    name, part = "response store with its journal", "paid"
    journal = True


class Sqlite:
    name = "SQLite, one SELECT per key"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "cache.db"

    def write(self, rows: int) -> None:
        base = sqlite3.connect(self.path)
        base.execute("pragma journal_mode = wal")
        base.execute("create table t (key text primary key, request text, text text)")
        for n, (request, answer) in enumerate(corpus(rows)):
            base.execute("insert into t values (?, ?, ?)",
                         (response_key("m", request), request, answer))  # fmt: skip
            if n % 20_000 == 0:
                base.commit()
        base.commit()
        base.close()

    def _count(self, keys: list[str]) -> int:
        base = sqlite3.connect(self.path)
        found = {}
        for key in keys:
            row = base.execute("select text from t where key = ?", (key,)).fetchone()
            if row is not None:
                found[key] = row[0]
        return len(found)

    def read(self, keys: list[str]) -> int:
        return self._count(keys)

    def missing(self, keys: list[str]) -> int:
        base = sqlite3.connect(self.path)
        one = "select 1 from t where key = ?"
        return sum(base.execute(one, (key,)).fetchone() is None for key in keys)


class JsonLines:
    name = "JSON lines + gzip (level 1), read into a dict"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "cache.jsonl.gz"

    def write(self, rows: int) -> None:
        with gzip.open(self.path, "wt", compresslevel=1) as file:
            for request, answer in corpus(rows):
                line = {"key": response_key("m", request), "request": request, "text": answer}
                file.write(json.dumps(line) + "\n")

    def read(self, keys: list[str]) -> int:
        with gzip.open(self.path, "rt") as file:
            known = {line["key"]: line["text"] for line in map(json.loads, file)}
        return sum(key in known for key in keys)

    def missing(self, keys: list[str]) -> int:
        return len(keys) - self.read(keys)


class DuckParquet:
    """The same segments, joined by DuckDB: the plain SQL way."""

    name = "DuckDB join over our segments"

    def __init__(self, folder: Path) -> None:
        self.glob = str(folder / "ours" / "*.parquet")

    def write(self, rows: int) -> None:
        """The segments are there already."""

    def _run(self, columns: str, keys: list[str]) -> int:
        import duckdb
        import pyarrow as pa

        base = duckdb.connect()
        base.execute("set threads = 1")
        base.register("wanted", pa.table({"key": keys}))
        parts = f"read_parquet('{self.glob}')"
        sql = f"select {columns} from {parts} s semi join wanted w on s.key = w.key"
        found = base.sql(sql).to_arrow_table().to_pydict()
        return len(dict(zip(*found.values(), strict=True)))

    def read(self, keys: list[str]) -> int:
        return self._run("s.key, s.text", keys)

    def missing(self, keys: list[str]) -> int:
        return len(keys) - self._run("s.key, 1 as n", keys)


def size(folder: Path, name: str) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file() and name in str(f))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--journal", action="store_true", help="also with the journal")
    given = parser.parse_args()
    rows = given.rows
    making = cpu(lambda: sum(1 for _ in corpus(rows)))
    keys = [response_key("m", request) for request, _ in corpus(rows)]
    random.Random(1).shuffle(keys)
    new = [response_key("m", f"new {n}") for n in range(rows // 100)]
    changed = keys[: rows - len(new)] + new
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{rows:,} answers; CPU-seconds of one process\n")
        print("| store | write | read all | find 1% missing | bytes per answer |\n"
              "|---|---|---|---|---|", flush=True)  # fmt: skip
        paid = ((Paid, "paid"),) if given.journal else ()
        for kind, files in ((Ours, "ours"), (DuckParquet, "ours"), *paid, (Sqlite, "cache.db"),
                            (JsonLines, "cache.jsonl")):  # fmt: skip
            store = kind(folder)
            found: list[int] = []
            write = max(cpu(lambda s=store: s.write(rows)) - making, 0.0)
            again = cpu(lambda s=store, f=found: f.append(s.read(keys)))
            part = cpu(lambda s=store, f=found: f.append(s.missing(changed)))
            if found != [rows, len(new)]:
                raise AssertionError(f"{kind.name}: found {found}, expected {[rows, len(new)]}")
            each = size(folder, files) / rows
            figures[kind.name] = [write, again, part, each]
            shown = "-" if kind is DuckParquet else f"{write:.1f}"
            print(f"| {kind.name} | {shown} | {again:.1f} | {part:.1f} | {each:.0f} |", flush=True)
            if kind not in (Ours, DuckParquet):
                for path in folder.glob(f"{files}*"):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        mine = figures.pop(Ours.name)
        print("\nratio of each to the response store (above 1: ours is better)\n")
        print("| store | write | read all | find 1% missing | bytes |\n|---|---|---|---|---|")
        for kind, row in figures.items():
            told = [
                f"{theirs / max(ours, 1e-9):.1f}" for theirs, ours in zip(row, mine, strict=True)
            ]
            told[0] = "-" if kind == DuckParquet.name else told[0]
            print(f"| {kind} | {' | '.join(told)} |")


if __name__ == "__main__":
    main()
