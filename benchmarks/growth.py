"""How CPU time and peak memory grow with the log and with the catalog; a process per figure.

    python benchmarks/growth.py [--quick]

Log: preparing 100k, 1M and 10M interactions (see ``prepare_log.py``). Catalog: with 1k, 10k, 100k
and 1M items, one SASRec step of 64 windows of 50 rows (full softmax up to 100k items, 256 sampled
negatives everywhere) and the full ranking of 256 users. ``--quick`` leaves out 10M interactions and
1M items.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402

FULL_SOFTMAX_UPTO = 100_000


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def least(job: Callable[[], object], repeats: int = 2) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        job()
        best = min(best, time.process_time() - start)
    return best


def of_log(rows: int) -> dict[str, float]:
    """Prepare a log of ``rows`` interactions."""
    from prepare_log import draw, ours

    with tempfile.TemporaryDirectory() as place:
        draw(Path(place), rows)
        base = peak_mb()
        start = time.process_time()
        ours(Path(place))
        return {"prepare_s": time.process_time() - start, "peak_mb": peak_mb(),
                "before_mb": base}  # fmt: skip


def of_catalog(items: int, loss: str) -> dict[str, float]:
    """One training step and the ranking of 256 users with ``items`` items."""
    import torch

    from llmers_pipelines.data.training import TEST, IdMap, TrainingData
    from llmers_pipelines.models.ranking_net import rank_targets
    from llmers_pipelines.models.sasrec import SASRec
    from llmers_pipelines.train.loop import load_loader

    torch.set_num_threads(1)
    rng, users, length = np.random.default_rng(0), 256, 53
    split = np.tile([0] * (length - 2) + [1, 2], users).astype(np.int8)
    data = TrainingData(
        "sequential", IdMap(tuple(map(str, range(users)))), IdMap(tuple(map(str, range(items)))),
        np.repeat(np.arange(1, users + 1), length), rng.integers(1, items + 1, users * length),
        np.tile(np.arange(length), users), split,
    )  # fmt: skip
    backbone = dataclasses.replace(SASRec(), loss=loss)
    model = backbone.build(data, 0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    batch = next(iter(load_loader(backbone.loader)(data, backbone, 0).epoch(1)))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model.loss(batch).backward()
        optimizer.step()

    step()
    found = {"step_s": least(step)}
    found["train_peak_mb"] = peak_mb()
    with torch.no_grad():
        model.eval()
        found["rank_256_users_s"] = least(lambda: rank_targets(model, data, TEST), 1)
    return found


def alone(kind: str, size: int, loss: str) -> dict[str, float]:
    """Run one figure in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", kind, str(size), loss], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="without the largest sizes")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        kind, size, loss = args.one[0], int(args.one[1]), args.one[2]
        print(json.dumps(of_log(size) if kind == "log" else of_catalog(size, loss)))
        return
    print("| interactions | prepare, CPU-s | us a row | peak MB |\n|---|---|---|---|")
    for rows in (100_000, 1_000_000) if args.quick else (100_000, 1_000_000, 10_000_000):
        r = alone("log", rows, "-")
        print(f"| {rows:,} | {r['prepare_s']:.2f} | {1e6 * r['prepare_s'] / rows:.2f} "
              f"| {r['peak_mb']:.0f} |", flush=True)  # fmt: skip
    print("\n| items | loss | step of 64 x 50, CPU-s | peak MB | ranking 256 users, CPU-s |")
    print("|---|---|---|---|---|")
    for items in (1_000, 10_000, 100_000) if args.quick else (1_000, 10_000, 100_000, 1_000_000):
        for loss in ("ce", "ssm") if items <= FULL_SOFTMAX_UPTO else ("ssm",):
            r = alone("catalog", items, loss)
            print(f"| {items:,} | {loss} | {r['step_s']:.3f} | {r['train_peak_mb']:.0f} "
                  f"| {r['rank_256_users_s']:.3f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
