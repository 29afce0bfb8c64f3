"""CPU seconds to load definitions with 100 synthetic recipes, beside a bare ``import dagster``.

    python benchmarks/definitions_load.py

Each figure is the minimum over fresh processes. The target: at most 1 CPU-s over the import.
"""

from __future__ import annotations

import subprocess
import sys

RUNS = 5
BARE = "import dagster"
FULL = """
import dagster
from llmers_pipelines.config import Settings
from llmers_pipelines.orchestrate.assemble import build_definitions
from llmers_pipelines.orchestrate.build import build_plan
from llmers_pipelines.api import Embed, FromVectors, ItemText, SASRec, Train, items, splits
from llmers_pipelines.recipe import Recipe

def synthetic(n):
    def build(backbone=SASRec()):
        start = FromVectors("item", Embed(ItemText(), over=items), scale=0.1 + n / 1000)
        return Train(backbone, splits("sequential"), init=(start,))
    return Recipe(f"Synthetic {n}", f"synthetic_{n}", "sequential", "initialization", "", build)

recipes = {f"synthetic_{n}": synthetic(n) for n in range(100)}
plan = build_plan(Settings(controls=("permuted",)), recipes)
defs = build_definitions(Settings(), plan)
"""
REPORT = "\nimport time, sys\nprint(time.process_time())"


def cpu(code: str) -> float:
    """Return the process CPU seconds of ``code`` in a fresh interpreter, minimum over runs."""
    times = []
    for _ in range(RUNS):
        done = subprocess.run(
            [sys.executable, "-c", code + REPORT], capture_output=True, text=True, check=True
        )
        times.append(float(done.stdout.split()[-1]))
    return min(times)


def main() -> None:
    bare, full = cpu(BARE), cpu(FULL)
    count = subprocess.run(
        [sys.executable, "-c", FULL + "\nprint(len(plan.nodes))"],
        capture_output=True, text=True, check=True,
    ).stdout.split()[-1]  # fmt: skip
    print(f"import dagster                 {bare:6.2f} CPU-s")
    print(f"definitions, {count} assets        {full:6.2f} CPU-s")
    print(f"difference                     {full - bare:6.2f} CPU-s (target: at most 1.00)")
    print(f"ratio to the bare import       {full / bare:6.2f}")


if __name__ == "__main__":
    main()
