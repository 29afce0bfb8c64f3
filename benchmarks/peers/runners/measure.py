"""What every runner shares: the job it is given, CPU time, peak memory, what it hands back.

Runners stand alone: those of peers run in the peers' environment, which lacks this project.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2]))

from peak_memory import peak_mb

VALID, TEST = 1, 2
NAMES = {VALID: "valid", TEST: "test"}


class Job:
    """A request as JSON: what to run, on which split, where results go."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
        self.split, self.out = Path(self.given["split"]), Path(self.given["out"])
        self.result: dict[str, Any] = {"history": []}

    def __getitem__(self, name: str) -> Any:
        return self.given[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.given.get(name, default)

    def log(self) -> dict[str, np.ndarray]:
        return self._arrays("split.npz")

    def facts(self) -> dict[str, np.ndarray]:
        """Return the knowledge graph: entities 1..N are the items of the log."""
        return self._arrays("facts.npz")

    def _arrays(self, name: str) -> dict[str, np.ndarray]:
        with np.load(self.split / name, allow_pickle=False) as z:
            return {name: z[name] for name in z.files}

    def scores(self, split: int, scores: np.ndarray) -> None:
        """Store float32[U + 1, N + 1] by position, or float64[R] of rows (clicks, ratings)."""
        np.save(self.out / f"scores_{NAMES[split]}.npy", scores)

    def write(self, *packages: str) -> None:
        self.result["peak_mb"] = peak_mb()
        self.result["versions"] = {p: importlib.metadata.version(p) for p in packages}
        (self.out / "result.json").write_text(json.dumps(self.result, indent=1))

    def keep_going(self) -> bool:
        """Whether the CPU budget of a training is not used up."""
        return time.process_time() < self.get("cpu_budget", float("inf"))


def before(log: dict[str, np.ndarray], values: np.ndarray, length: int) -> np.ndarray:
    """Return (R, length): the latest ``values`` of each row's history, oldest first.

    ``values`` stand beside ``log["liked"]``; 0 where a history is shorter.
    """
    at = log["end"][:, None] + np.arange(-length, 0)
    inside = at >= log["begin"][:, None]
    return np.where(inside, np.append(values, 0)[at * inside], 0)


def least_cpu(job: Callable[[], object], repeats: int) -> float:
    """Return the least process CPU seconds of ``job`` over the repeats."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        job()
        best = min(best, time.process_time() - start)
    return best


def train_until_best(
    job: Job,
    epoch: Callable[[int], object],
    validate: Callable[[], float],
    improved: Callable[[], None],
) -> None:
    """Train epoch by epoch with early stopping; ``improved`` is called at each new best.

    ``result["history"]`` gets (epoch, CPU seconds so far, validation metric); seconds are of
    training and validation, not of writing scores.
    """
    best, waited, spent, every = -1.0, 0, 0.0, job.get("eval_every", 1)
    train = 0.0
    for number in range(1, job["epochs"] + 1):
        start = time.process_time()
        epoch(number)
        train += time.process_time() - start
        if number % every:
            spent += time.process_time() - start
            continue
        value = validate()
        spent += time.process_time() - start
        job.result["history"].append([number, spent, value])
        print(f"epoch {number}: {spent:.1f} CPU-s, validation {value:.4f}", flush=True)
        waited += 1
        if value > best:
            best, waited = value, 0
            job.result |= {"best_epoch": number, "cpu_to_best": spent, "valid": value}
            improved()
        if waited >= job.get("patience", 10) or not job.keep_going():
            job.result["stopped"] = "patience" if waited >= job.get("patience", 10) else "budget"
            break
    job.result["cpu_train"], job.result["cpu_total"] = train, spent
