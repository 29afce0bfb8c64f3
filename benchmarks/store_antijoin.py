"""Which of the wanted keys are not stored yet: 20 million stored, beside DuckDB on the same files.

    python benchmarks/store_antijoin.py [--stored 20000000] [--wanted 1000000] [--sqlite]

Half of the wanted keys are stored, spread over all segments of 100,000 rows, as compaction leaves
them. Prints CPU-seconds and peak memory of a new process each: ours reads and compares numbers,
DuckDB anti-joins the key column of the same Parquet files (one thread), SQLite asks an indexed
table (``--sqlite``; filling it takes minutes). Keys are random; texts are short, since the question
reads none.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from peak_memory import peak_mb

from llmers_pipelines.store.responses import SCHEMA, ResponseStore

ROWS = 100_000
HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def digits(raw: np.ndarray) -> pa.Array:
    """Return the rows of uint8[n, w] as hexadecimal strings."""
    text = np.empty((len(raw), raw.shape[1] * 2), np.uint8)
    text[:, ::2], text[:, 1::2] = HEX[raw >> 4], HEX[raw & 15]
    offsets = np.arange(len(raw) + 1, dtype=np.int32) * text.shape[1]
    return pa.StringArray.from_buffers(len(raw), pa.py_buffer(offsets), pa.py_buffer(text))


def fill(folder: Path, stored: int, wanted: int) -> list[str]:
    """Write the segments and return the wanted keys, half of them stored."""
    store = ResponseStore(folder)
    draw = np.random.default_rng(0)
    keys: list[str] = []
    segments = max(1, stored // ROWS)
    for _ in range(segments):
        raw = draw.integers(0, 256, (ROWS, 32), np.uint8)
        numbers = raw.view(">u8")
        raw = raw[np.argsort(numbers[:, 0])]
        numbers = raw.view(">u8").astype(np.uint64)
        key = digits(raw)
        same = pa.array(["x"] * ROWS)
        columns: dict[str, object] = {
            "key": key, "key64": numbers[:, 0], "low64": numbers[:, 1], "text": same,
            "checksum": digits(draw.integers(0, 256, (ROWS, 16), np.uint8)),
        }  # fmt: skip
        arrays = [columns.get(f.name, pa.nulls(ROWS, f.type)) for f in SCHEMA]
        store.segments.publish(pa.table(arrays, schema=SCHEMA))
        chosen = draw.choice(ROWS, wanted // 2 // segments, replace=False)
        keys += key.take(pa.array(chosen)).to_pylist()
    keys += digits(draw.integers(0, 256, (wanted - len(keys), 32), np.uint8)).to_pylist()
    draw.shuffle(keys)
    return keys


def ours(folder: Path, keys: list[str]) -> int:
    return len(keys) - len(ResponseStore(folder).known(keys))


def ask_duckdb(folder: Path, keys: list[str]) -> int:
    import duckdb

    base = duckdb.connect()
    base.execute("set threads = 1")
    base.execute("set memory_limit = '5GB'")
    base.register("wanted", pa.table({"key": keys}))
    return base.sql(f"select key from wanted anti join read_parquet('{folder}/*.parquet') s "
                    "using (key)").to_arrow_table().num_rows  # fmt: skip


def sqlite(folder: Path, keys: list[str]) -> int:
    import sqlite3

    base = sqlite3.connect(folder.parent / "keys.db")
    one = "select 1 from t where key = ?"
    return sum(base.execute(one, (key,)).fetchone() is None for key in keys)


def fill_sqlite(folder: Path) -> None:
    import sqlite3

    base = sqlite3.connect(folder.parent / "keys.db")
    base.execute("pragma journal_mode = off")
    base.execute("pragma synchronous = off")
    base.execute("create table t (key text primary key) without rowid")
    store = ResponseStore(folder)
    for segment in store.segments.segments():
        keys = store.segments.read(segment, ["key"])["key"].to_pylist()
        base.executemany("insert into t values (?)", ((key,) for key in keys))
    base.commit()
    base.close()


def measure(kind: str, folder: Path) -> None:
    keys = json.loads((folder.parent / "wanted.json").read_text())
    work = {"ours": ours, "duckdb": ask_duckdb, "sqlite": sqlite}[kind]
    if kind == "duckdb":
        import duckdb  # noqa: F401  (its import is no part of the question)
    before = peak_mb()
    began = time.process_time()
    lacking = work(folder, keys)
    seconds = time.process_time() - began
    peak = peak_mb()
    print(json.dumps({"lacking": lacking, "seconds": seconds, "mb": peak - before}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stored", type=int, default=20_000_000)
    parser.add_argument("--wanted", type=int, default=1_000_000)
    parser.add_argument("--sqlite", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        return measure(given.one[0], Path(given.one[1]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "responses"
        keys = fill(folder, given.stored, given.wanted)
        (Path(name) / "wanted.json").write_text(json.dumps(keys))
        size = sum(p.stat().st_size for p in folder.iterdir()) / 1e9
        print(f"{given.stored:,} stored ({size:.2f} GB), {len(keys):,} wanted\n")
        print("| way | CPU-s (best of 3) | added peak MB | ratio |\n|---|---|---|---|", flush=True)
        if given.sqlite:
            fill_sqlite(folder)
        first, answers = 0.0, set()
        for kind in ("ours", "duckdb", *(["sqlite"] if given.sqlite else [])):
            command = [sys.executable, __file__, "--one", kind, str(folder)]
            runs = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                    for _ in range(3)]  # fmt: skip
            best = min(r["seconds"] for r in runs)
            first = first or best
            answers |= {r["lacking"] for r in runs}
            peak = min(r["mb"] for r in runs)
            print(f"| {kind} | {best:.2f} | {peak:.0f} | {best / first:.1f} |", flush=True)
        if len(answers) != 1:
            raise AssertionError(f"the ways disagree: {answers} keys lacking")
        print(f"\n{answers.pop():,} of the wanted keys are not stored; all ways agree")


if __name__ == "__main__":
    main()
