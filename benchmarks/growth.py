"""How CPU time and peak memory grow with the log and with the catalog; a process per figure.

    python benchmarks/growth.py [--quick] [--only log,catalog,training]

Log: preparing 100k, 1M and 10M interactions (see ``prepare_log.py``). Catalog: with 1k, 10k, 100k
and 1M items, one SASRec step of 64 windows of 50 rows (full softmax up to 100k items, 256 sampled
negatives everywhere) and the full ranking of 256 users. Training: with 100k, 1M and 10M
interactions of 20,000 items, one epoch of a training (``run_epochs``), the ``validate`` it ends
with, and the rank of every validation target. An epoch that has spent ``STEPS_CPU_S`` ends there;
its time is that of its steps after warm-up times all steps. ``--quick``: the largest sizes not.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
from peak_memory import peak_mb  # noqa: E402

FULL_SOFTMAX_UPTO = 100_000
CATALOG = 20_000  # items of every log that is trained on
STEPS_CPU_S = 60.0  # steps of one epoch that are waited for
WARM_UP = 3  # steps that the time of a step leaves out
MODELS = ("BPR-MF", "BPR-MF wide", "SASRec")
WIDE = 16_384  # pairs of a step of "BPR-MF wide"; 1,024 is the default


def least(job: Callable[[], object], repeats: int = 2) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        job()
        best = min(best, time.process_time() - start)
    return best


def of_log(rows: int) -> dict[str, float]:
    """Prepare a log of ``rows`` interactions."""
    from prepare_log import draw, measured

    with tempfile.TemporaryDirectory() as place:
        draw(Path(place), rows)
        return measured("ours", Path(place))


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


class Clocked:
    """A loader that times what a training asks of it, and ends an epoch after ``seconds``."""

    def __init__(self, loader: Any, seconds: float = STEPS_CPU_S) -> None:
        self.loader, self.seconds, self.found = loader, seconds, dict[str, float]()
        self.data, self.steps_per_epoch = loader.data, loader.steps_per_epoch

    def epoch(self, number: int) -> Iterator[Any]:
        start, done, every = time.process_time(), 0, self.steps_per_epoch
        skipped, order, warm, now = min(WARM_UP, every - 1), start, start, start
        for batch in self.loader.epoch(number):
            if not done:
                order = warm = time.process_time()  # an epoch is put in order before that
            yield batch
            done, now = done + 1, time.process_time()
            if done == skipped:
                warm = now
            elif done > skipped and now - start > self.seconds:
                break
        step = (now - warm) / (done - skipped)
        self.found |= {"steps": done, "of_steps": every, "step_s": step,
                       "epoch_s": order - start + step * every}  # fmt: skip

    def validate(self, model: Any) -> float:
        self.found["train_peak_mb"], start = peak_mb(), time.process_time()
        value = self.loader.validate(model)
        self.found["validate_s"] = time.process_time() - start
        return value


def backbone_of(model: str) -> Any:
    from llmers_pipelines.models.bprmf import BPRMF
    from llmers_pipelines.models.sasrec import SASRec

    base = SASRec(loss="ssm") if model == "SASRec" else BPRMF()
    batch = WIDE if model.endswith("wide") else base.fit.batch
    return dataclasses.replace(base, fit=dataclasses.replace(base.fit, epochs=1, batch=batch))


def logged(folder: Path, rows: int, items: int = CATALOG) -> dict[str, float]:
    """Draw ``rows`` interactions, store them below ``folder`` as a training reads them."""
    import pyarrow.parquet as pq
    from prepare_log import draw

    from llmers_pipelines.data.description import load_description
    from llmers_pipelines.data.splits import build_training_data

    draw(folder, rows, catalog=items)
    tables = {n: pq.read_table(folder / f"{n}.parquet") for n in ("items", "interactions")}
    description = load_description(folder / "drawn.toml")
    data = build_training_data(tables, description, "sequential")
    data.save(folder / "log")
    return {"rows": len(data.user), "items": data.n_items}


def of_training(folder: Path, model: str, seconds: float = STEPS_CPU_S) -> dict[str, float]:
    """One epoch of ``model`` on the log of ``folder``, its validation, and all ranks."""
    import torch

    from llmers_pipelines.data.training import VALID, TrainingData
    from llmers_pipelines.models.ranking_net import rank_targets
    from llmers_pipelines.train.loop import load_loader, run_epochs

    torch.set_num_threads(1)
    data = TrainingData.load(folder / "log")
    backbone = backbone_of(model)
    found = {"rows": len(data.user), "users": data.n_users, "batch": backbone.fit.batch,
             "loaded_mb": peak_mb()}  # fmt: skip
    net = backbone.build(data, 0)
    clocked = Clocked(load_loader(backbone.loader)(data, backbone, 0), seconds)
    run_epochs(net, clocked, backbone.fit, model)
    found |= clocked.found | {"peak_mb": peak_mb()}
    found["ranks_s"] = least(lambda: rank_targets(net, data, VALID), 1)
    return found | {"ranks_peak_mb": peak_mb()}


def alone(kind: str, size: int | str, what: str) -> dict[str, float]:
    """Run one figure in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", kind, str(size), what], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def one(kind: str, size: str, what: str) -> dict[str, float]:
    if kind in ("draw", "training"):
        return logged(Path(what), int(size)) if kind == "draw" else of_training(Path(size), what)
    return of_log(int(size)) if kind == "log" else of_catalog(int(size), what)


def log_table(sizes: list[int]) -> None:
    print("| interactions | prepare, CPU-s | us a row | peak MB |\n|---|---|---|---|")
    for rows in sizes:
        r = alone("log", rows, "-")
        print(f"| {rows:,} | {r['seconds']:.2f} | {1e6 * r['seconds'] / rows:.2f} "
              f"| {r['peak_mb']:.0f} |", flush=True)  # fmt: skip


def catalog_table(sizes: list[int]) -> None:
    print("| items | loss | step of 64 x 50, CPU-s | peak MB | ranking 256 users, CPU-s |")
    print("|---|---|---|---|---|")
    for items in sizes:
        for loss in ("ce", "ssm") if items <= FULL_SOFTMAX_UPTO else ("ssm",):
            r = alone("catalog", items, loss)
            print(f"| {items:,} | {loss} | {r['step_s']:.3f} | {r['train_peak_mb']:.0f} "
                  f"| {r['rank_256_users_s']:.3f} |", flush=True)  # fmt: skip


def training_table(sizes: list[int]) -> None:
    print("CPU-s / us a kept row; MB: log loaded / + training / + validation / + all ranks\n")
    print("| interactions (kept) | users | model, batch | step, ms | from steps | epoch | validate "
          "| all ranks | peak MB |\n" + "|---" * 9 + "|")  # fmt: skip
    times = ("epoch_s", "validate_s", "ranks_s")
    peaks = ("loaded_mb", "train_peak_mb", "peak_mb", "ranks_peak_mb")
    for rows in sizes:
        with tempfile.TemporaryDirectory() as place:
            alone("draw", rows, place)
            for model in MODELS:
                r = alone("training", place, model)
                each = " | ".join(f"{r[n]:.2f} / {1e6 * r[n] / r['rows']:.2f}" for n in times)
                held = " / ".join(f"{r[n]:,.0f}" for n in peaks)
                print(f"| {rows:,} ({r['rows']:,}) | {r['users']:,} "
                      f"| {model.removesuffix(' wide')}, {r['batch']:,} | {1e3 * r['step_s']:.1f} "
                      f"| {r['steps']:,} of {r['of_steps']:,} | {each} | {held} |",
                      flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="without the largest sizes")
    parser.add_argument("--only", default="log,catalog,training", help="some tables")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(*args.one)))
        return
    sizes = [1_000, 10_000, 100_000, 1_000_000, 10_000_000][: -1 if args.quick else None]
    tables = {"log": (log_table, sizes[2:]), "catalog": (catalog_table, sizes[:-1]),
              "training": (training_table, sizes[2:])}  # fmt: skip
    for table, sizes in (tables[name] for name in args.only.split(",")):
        table(sizes)
        print()


if __name__ == "__main__":
    main()
