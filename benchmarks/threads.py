"""What a second thread buys: wall and CPU seconds of an epoch with one thread and with more.

    python benchmarks/threads.py [--threads 2] [--repeats 3]

Each side is a process of its own on ml100k (below LLMERS_DATA_ROOT; a synthetic log of that size
without it); the least over repeats. Trainings are cells that do not wait for each other, so the
peer of n threads is n trainings side by side with one thread each: the last column is how long n
epochs take one after the other with n threads, over how long they take side by side (the slowest
process, its mean epoch). Above 1, one thread is the better setting.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

MODELS = ("SASRec", "GRU4Rec", "BERT4Rec", "LightGCN", "BPRMF")


def measured(name: str, threads: int, repeats: int, beside: int = 1) -> list[list[float]]:
    """Return [least wall, least CPU, mean wall] s of an epoch, of processes started together."""
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "--one", name, "--threads", str(threads),
               "--repeats", str(repeats)]  # fmt: skip
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
               for _ in range(beside)]  # fmt: skip
    told = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{name} with {threads} threads failed")
    return [json.loads(text.splitlines()[-1]) for text in told]


def one(name: str, threads: int, repeats: int) -> tuple[float, float, float]:
    import torch
    from sasrec_epoch import default_log, our_epoch, read_log

    from llmers_pipelines import api

    torch.set_num_threads(threads)
    epoch = our_epoch(getattr(api, name)(), read_log(default_log()))
    epoch()
    walls, cpus = [], []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        epoch()
        walls.append(time.perf_counter() - start[0])
        cpus.append(time.process_time() - start[1])
    return min(walls), min(cpus), sum(walls) / len(walls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[os.cpu_count() or 1])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", choices=MODELS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(args.one, args.threads[0], args.repeats)))
        return
    print("| epoch of | threads | wall s | CPU-s | one thread / these | in turn / side by side |")
    print("|---|---|---|---|---|---|")
    for name in MODELS:
        ((base, *_),) = measured(name, 1, args.repeats)
        for threads in args.threads:
            ((wall, cpu, mean),) = measured(name, threads, args.repeats)
            beside = max(m for *_, m in measured(name, 1, 3 * args.repeats, threads))
            print(f"| {name} | {threads} | {wall:.2f} | {cpu:.2f} | {base / wall:.2f} | "
                  f"{mean * threads / beside:.2f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
