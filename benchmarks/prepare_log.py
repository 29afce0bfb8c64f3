"""Preparing a log for training: ours against pandas and plain DuckDB SQL, each in its own process.

    python benchmarks/prepare_log.py [--rows 10000000] [--quick]

From one Parquet file of (user_id, item_id as text, timestamp): first row of each pair, 5-core until
nothing falls away, positions, order by user and time, leave-one-out parts, each user's history. All
sides must agree on rows, users, items and a checksum of the test rows. ``ours`` starts from checked
tables, as the split asset does; ``ours, with checks`` from raw files, with every row examined.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
for name in THREADS:
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from peak_memory import peak_mb  # noqa: E402

CORE = 5
DESCRIPTION = """
name = "drawn"
about = "drawn"
domain = "none"
root = "{root}"
[items]
path = "items.parquet"
[interactions]
path = "interactions.parquet"
[splits.sequential]
protocol = "leave_one_out"
"""
DENSE = 'k_core = 5\nuniverse = "interactions"\n'


def draw(folder: Path, rows: int, seed: int = 0, catalog: int = 0) -> None:
    """Write a log of ``rows`` rows: about 50 per user, popular items more often.

    With ``catalog`` there are as many items whatever the rows, and all of them are kept.
    """
    rng = np.random.default_rng(seed)
    users, items = max(100, rows // 50), catalog or max(100, rows // 200)
    active = rng.lognormal(0, 1, users)
    weight = 1 / np.arange(1, items + 1) ** 0.8
    user = rng.choice(users, rows, p=active / active.sum())
    item = rng.permutation(items)[rng.choice(items, rows, p=weight / weight.sum())]
    when = rng.integers(1_500_000_000, 1_600_000_000, rows)
    text = [pa.array(ids).cast(pa.string()) for ids in (user, item)]
    table = pa.table({"user_id": text[0], "item_id": text[1], "timestamp": when})
    pq.write_table(table, folder / "interactions.parquet")
    ids = pa.array(np.arange(items)).cast(pa.string())
    pq.write_table(pa.table({"item_id": ids}), folder / "items.parquet")
    kept = "" if catalog else DENSE
    (folder / "drawn.toml").write_text(DESCRIPTION.format(root=folder) + kept)


def facts(n_users: int, n_items: int, rows: int, tests: np.ndarray) -> dict[str, int]:
    """``tests``: the number of each test row's item, any order of users."""
    return {"users": n_users, "items": n_items, "rows": rows, "tests": len(tests),
            "sum": int(tests.astype(np.int64).sum())}  # fmt: skip


def ours(folder: Path) -> dict[str, int]:
    from llmers_pipelines.data.description import load_description
    from llmers_pipelines.data.splits import build_training_data

    names = ("items", "interactions")
    tables = {n: pq.read_table(folder / f"{n}.parquet") for n in names}
    return _ours(build_training_data(tables, load_description(folder / "drawn.toml"), "sequential"))


def checked(folder: Path) -> dict[str, int]:
    from llmers_pipelines.data.catalog import load_catalog
    from llmers_pipelines.data.description import load_description
    from llmers_pipelines.data.splits import build_training_data

    description = load_description(folder / "drawn.toml")
    return _ours(build_training_data(load_catalog(description), description, "sequential"))


def _ours(data) -> dict[str, int]:
    from llmers_pipelines.data.training import TEST
    from llmers_pipelines.models.histories import history_before

    history_before(data, TEST)
    numbers = np.array(data.items.ids).astype(np.int64)
    tests = numbers[data.item[data.split == TEST] - 1]
    return facts(data.n_users, data.n_items, len(data.user), tests)


def pandas(folder: Path) -> dict[str, int]:
    import pandas as pd

    log = pd.read_parquet(folder / "interactions.parquet")
    log = log.sort_values(["user_id", "timestamp"], kind="stable")
    log = log.drop_duplicates(["user_id", "item_id"])
    while True:
        often = log["item_id"].map(log["item_id"].value_counts()) >= CORE
        active = log["user_id"].map(log["user_id"].value_counts()) >= CORE
        if (often & active).all():
            break
        log = log[often & active]
    item, items = pd.factorize(log["item_id"])
    user, users = pd.factorize(log["user_id"])
    log = log.assign(user=user + 1, item=item + 1)
    from_end = log.groupby("user").cumcount(ascending=False)
    log["part"] = from_end.map({0: 2, 1: 1}).fillna(0).astype("int8")
    log[log["part"] < 2].groupby("user")["item"].agg(list)
    tests = log.loc[log["part"] == 2, "item_id"].to_numpy().astype(np.int64)
    return facts(len(users), len(items), len(log), tests)


def duckdb(folder: Path) -> dict[str, int]:
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET threads TO 1")
    connection.execute(f"""CREATE TABLE log AS SELECT user_id, item_id, timestamp, n FROM (
        SELECT *, row_number() OVER (PARTITION BY user_id, item_id ORDER BY timestamp, n) AS k
        FROM (SELECT *, row_number() OVER () AS n
              FROM read_parquet('{folder}/interactions.parquet'))) WHERE k = 1""")
    rows = -1
    while rows != (rows := connection.execute("SELECT count(*) FROM log").fetchall()[0][0]):
        connection.execute(f"""CREATE OR REPLACE TABLE log AS SELECT * FROM log
            WHERE user_id IN (SELECT user_id FROM log GROUP BY 1 HAVING count(*) >= {CORE})
            AND item_id IN (SELECT item_id FROM log GROUP BY 1 HAVING count(*) >= {CORE})""")
    connection.execute("""CREATE TABLE users AS SELECT user_id, row_number() OVER () AS u
        FROM (SELECT DISTINCT user_id FROM log)""")
    connection.execute("""CREATE TABLE items AS SELECT item_id, row_number() OVER () AS i
        FROM (SELECT DISTINCT item_id FROM log)""")
    connection.execute("""CREATE TABLE ready AS SELECT u, i, item_id, timestamp, n,
        row_number() OVER (PARTITION BY u ORDER BY timestamp DESC, n DESC) AS from_end
        FROM log JOIN users USING (user_id) JOIN items USING (item_id) ORDER BY u, timestamp, n""")
    connection.execute("""CREATE TABLE histories AS SELECT u, list(i ORDER BY timestamp, n)
        FROM ready WHERE from_end > 1 GROUP BY u""")
    log = connection.execute("SELECT u, i, from_end FROM ready").fetchnumpy()
    query = "SELECT CAST(item_id AS BIGINT) AS t FROM ready WHERE from_end = 1"
    tests = connection.execute(query).fetchnumpy()["t"]
    return facts(len(np.unique(log["u"])), len(np.unique(log["i"])), len(log["u"]), tests)


SIDES = {"ours": ours, "ours, with checks": checked, "pandas": pandas, "duckdb": duckdb}


def measured(side: str, folder: Path) -> dict[str, float]:
    """Run one side in a fresh process; imports are no part of the time."""
    done = subprocess.run(
        [sys.executable, __file__, "--side", side, "--folder", str(folder)],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{side}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def alone(side: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as small:  # imports and first calls
        draw(Path(small), 20_000)
        SIDES[side](Path(small))
    before = peak_mb()
    start = time.process_time()
    found = SIDES[side](folder)
    seconds = time.process_time() - start
    peak = peak_mb()
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "before_mb": before, "found": found}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--quick", action="store_true", help="300,000 rows")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--sides", default=";".join(SIDES), help="some of them, separated by ;")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return alone(args.side, args.folder)
    rows = 300_000 if args.quick else args.rows
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        draw(folder, rows)
        first = None
        for side in args.sides.split(";"):
            runs = [measured(side, folder) for _ in range(args.repeats)]
            best = min(runs, key=lambda r: r["seconds"])
            first = first or best
            if best["found"] != first["found"]:
                raise SystemExit(f"{side} found {best['found']}, ours {first['found']}")
            print(f"{side:<20} {best['seconds']:7.2f} CPU-s  {best['peak_mb']:6.0f} MB  "
                  f"x{best['seconds'] / first['seconds']:.1f}", flush=True)  # fmt: skip
        print(f"{rows:,} rows in; out: {first['found'] if first else None}")


if __name__ == "__main__":
    main()
