"""CPU seconds to load definitions with 100 synthetic recipes, beside a bare ``import dagster``.

    python benchmarks/definitions_load.py

Each figure is the minimum over fresh processes, whose modules are compiled, as an installed
package's are after its first start. The target: at most 1 CPU-s over the import.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

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


def last_word(code: str, compiled: str) -> str:
    """Run ``code`` in a fresh interpreter that keeps bytecode below ``compiled``."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**env, "PYTHONPYCACHEPREFIX": compiled},
    )  # fmt: skip
    return done.stdout.split()[-1]


def cpu(code: str, compiled: str) -> float:
    """Return the process CPU seconds of ``code``, minimum over runs."""
    return min(float(last_word(code + REPORT, compiled)) for _ in range(RUNS))


def main() -> None:
    with tempfile.TemporaryDirectory() as compiled:
        count = last_word(FULL + "\nprint(len(plan.nodes))", compiled)  # compiles all
        bare, full = cpu(BARE, compiled), cpu(FULL, compiled)
    print(f"import dagster                 {bare:6.2f} CPU-s")
    print(f"definitions, {count} assets        {full:6.2f} CPU-s")
    print(f"difference                     {full - bare:6.2f} CPU-s (target: at most 1.00)")
    print(f"ratio to the bare import       {full / bare:6.2f}")


if __name__ == "__main__":
    main()
