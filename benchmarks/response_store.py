"""The response store beside its peers: a table in SQLite, a log of JSON lines, DuckDB over Parquet.

    python benchmarks/response_store.py [--rows 200000]

Prints CPU-seconds (minimum over repeats, one process) and bytes for: writing all answers; asking
for all of them again from a new process (the second run of an asset); asking where 1% is new (a
changed catalog); finding the missing keys alone. Answers are pseudo-random words of about 700
characters and requests of about 1,500 with a shared beginning, as item prompts have.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from llmers_pipelines.store.responses import ResponseStore, response_key

INSTRUCTIONS = "You write catalog knowledge for a recommender system. " * 18


def corpus(rows: int) -> tuple[list[str], list[str], list[str]]:
    """Return requests, answers and keys."""
    draw = random.Random(0)
    words = ["".join(draw.choices("aeioubcdfglmnprst", k=draw.randint(3, 9))) for _ in range(5000)]

    def text(n: int) -> str:
        return " ".join(draw.choices(words, k=n))

    requests = [f"{INSTRUCTIONS}<item>{n} {text(70)}</item>" for n in range(rows)]
    return requests, [text(100) for _ in range(rows)], [response_key("m", r) for r in requests]


def cpu(work: Callable[[], object], repeats: int = 3) -> float:
    best = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


class Ours:
    name = "response store"

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "ours"

    def write(self, requests: list[str], answers: list[str], keys: list[str]) -> None:
        with ResponseStore(self.folder).writer(flush_rows=5000, flush_seconds=1e9) as writer:
            for request, answer in zip(requests, answers, strict=True):
                writer.put(text=answer, finish_reason="stop", request=request, identity="m",
                           tokens_in=300, tokens_out=120)  # fmt: skip

    def read(self, keys: list[str]) -> int:
        found = ResponseStore(self.folder).lookup(keys)
        return len(found)

    def missing(self, keys: list[str]) -> int:
        return len(keys) - len(ResponseStore(self.folder).known(keys))


class Sqlite:
    name = "SQLite, one SELECT per key"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "cache.db"

    def write(self, requests: list[str], answers: list[str], keys: list[str]) -> None:
        with sqlite3.connect(self.path) as base:
            base.execute("pragma journal_mode = wal")
            base.execute("create table t (key text primary key, request text, text text)")
            base.executemany("insert into t values (?, ?, ?)",
                             zip(keys, requests, answers, strict=True))  # fmt: skip

    def read(self, keys: list[str]) -> int:
        base = sqlite3.connect(self.path)
        one = "select text from t where key = ?"
        return sum(base.execute(one, (key,)).fetchone() is not None for key in keys)

    def missing(self, keys: list[str]) -> int:
        base = sqlite3.connect(self.path)
        one = "select 1 from t where key = ?"
        return sum(base.execute(one, (key,)).fetchone() is None for key in keys)


class JsonLines:
    name = "JSON lines, read into a dict"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "cache.jsonl"

    def write(self, requests: list[str], answers: list[str], keys: list[str]) -> None:
        with self.path.open("w") as file:
            for key, request, answer in zip(keys, requests, answers, strict=True):
                file.write(json.dumps({"key": key, "request": request, "text": answer}) + "\n")

    def read(self, keys: list[str]) -> int:
        with self.path.open() as file:
            known = {line["key"]: line["text"] for line in map(json.loads, file)}
        return sum(key in known for key in keys)

    def missing(self, keys: list[str]) -> int:
        return len(keys) - self.read(keys)


class DuckParquet:
    """The same segments, joined by DuckDB: the plain SQL way."""

    name = "DuckDB join over our segments"

    def __init__(self, folder: Path) -> None:
        self.glob = str(folder / "ours" / "*.parquet")

    def write(self, requests: list[str], answers: list[str], keys: list[str]) -> None:
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
    parser.add_argument("--rows", type=int, default=200_000)
    rows = parser.parse_args().rows
    requests, answers, keys = corpus(rows)
    new = [response_key("m", f"new {n}") for n in range(rows // 100)]
    changed = keys[: rows - len(new)] + new
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{rows:,} answers; CPU-seconds, minimum of 3\n")
        print("| store | write | read all | find 1% missing | MB |\n|---|---|---|---|---|")
        for kind, files in ((Ours, "ours"), (Sqlite, "cache.db"), (JsonLines, "cache.jsonl"),
                            (DuckParquet, "ours")):  # fmt: skip
            store = kind(folder)
            write = cpu(lambda s=store: s.write(requests, answers, keys), 1)
            again = cpu(lambda s=store: s.read(keys))
            if (found := store.read(keys)) != rows:
                raise AssertionError(f"{kind.name}: found {found} of {rows}")
            if (lacking := store.missing(changed)) != len(new):
                raise AssertionError(f"{kind.name}: {lacking} missing, expected {len(new)}")
            part = cpu(lambda s=store: s.missing(changed))
            megabytes = size(folder, files) / 1e6
            print(f"| {kind.name} | {write:.2f} | {again:.2f} | {part:.2f} | {megabytes:.0f} |")


if __name__ == "__main__":
    main()
