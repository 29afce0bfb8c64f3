"""What the refresh sensor costs while nothing happens, and what it adds to the work of an edit.

    python benchmarks/refresh_sensor.py idle [SECONDS]     CPU-s a minute, sensor on against off
    python benchmarks/refresh_sensor.py edit               from an edited title to the champion

``idle``: daemon and code server with every recipe and eight data sets, all of whose assets are
stored and fresh; processor time of both processes and their children over SECONDS (default 120).
Targets: at most 1 CPU-s a minute, and at most 60 s beyond the steps' own seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

import dagster as dg  # noqa: E402
from daemon import Daemon  # noqa: E402

from llmers_pipelines.config import load_settings  # noqa: E402
from llmers_pipelines.orchestrate.applicable import applicable  # noqa: E402
from llmers_pipelines.orchestrate.build import build_plan  # noqa: E402
from llmers_pipelines.orchestrate.context import StepContext  # noqa: E402
from llmers_pipelines.orchestrate.home import open_instance  # noqa: E402
from llmers_pipelines.orchestrate.publish import wanted  # noqa: E402
from llmers_pipelines.store.manifests import Manifest  # noqa: E402

SETS = 8


def environment(home: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LLMERS_", "DAGSTER_"))}
    return kept | {
        "LLMERS_HOME": str(home), "LLMERS_CONFIG": str(home / "llmers.toml"),
        "DAGSTER_HOME": str(home / "dagster_home"), "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip


def stored(home: Path) -> int:
    """Write eight data sets and a fresh manifest of every asset for each; return how many."""
    (home / "llmers.toml").write_text("[refresh]\nenabled = true\n")  # no methods: every recipe
    sample = ROOT / "data" / "sample"
    for n in range(SETS):
        folder = home / "data" / f"set{n}"
        folder.mkdir(parents=True)
        shutil.copytree(sample, folder, dirs_exist_ok=True)
        (folder / "sample.toml").unlink()
        told = (sample / "sample.toml").read_text().replace('name = "sample"', f'name = "set{n}"')
        (folder / f"set{n}.toml").write_text(told)
    settings = load_settings(home=home, config=home / "llmers.toml")
    plan = build_plan(settings)
    count = 0
    for n in range(SETS):
        ctx = StepContext(settings, f"set{n}")
        nodes, _ = applicable(plan, list(plan.nodes), ctx.description)
        for node in nodes:
            folder = f"{ctx.dataset}/{node.name}/1"
            (settings.data / "warehouse" / folder).mkdir(parents=True)
            ctx.manifests.write(Manifest(
                name=node.name, dataset=ctx.dataset, data_version="1", digest=node.digest,
                folder=folder, **wanted(node, ctx),
            ))  # fmt: skip
            count += 1
    open_instance(settings).dispose()
    return count


def idle(seconds: float) -> None:
    found = {}
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        count = stored(home)
        for on in (False, True):
            (home / "llmers.toml").write_text(f"[refresh]\nenabled = {str(on).lower()}\n")
            with Daemon(environment(home), home) as daemon:
                if on:
                    daemon.wait(daemon.ticks, "the first look", 120)
                time.sleep(40)  # what is done once at the start is over
                start, cpu = time.monotonic(), daemon.cpu_seconds()
                time.sleep(seconds)
                spent = daemon.cpu_seconds() - cpu
                found[on] = 60 * spent / (time.monotonic() - start)
                assert not daemon.runs(), "nothing is stale"
                ticks = daemon.ticks()
                assert bool(ticks) is on
                print(f"sensor {'on ' if on else 'off'}: {found[on]:6.2f} CPU-s a minute"
                      f"{f', {ticks[0].status.value}' if ticks else ''}", flush=True)  # fmt: skip
            shutil.rmtree(home / "dagster_home")
            open_instance(load_settings(home=home, config=home / "llmers.toml")).dispose()
    print(f"{count} assets of {SETS} data sets; difference {found[True] - found[False]:.2f} CPU-s "
          "a minute (target: at most 1)")  # fmt: skip


def edit() -> None:
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        shutil.copyfile(ROOT / "llmers.toml", home / "llmers.toml")
        shutil.copytree(ROOT / "data" / "sample", home / "data" / "sample")
        env = environment(home)
        start = time.monotonic()
        command = [sys.executable, "-c", "from llmers_pipelines.cli import main; main()", "run",
                   "all", "-d", "sample", "--json"]  # fmt: skip
        done = subprocess.run(command, env=env, cwd=home, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        made = json.loads(done.stdout)["assets"]
        print(f"first run: {len(made)} assets, {time.monotonic() - start:.0f} s", flush=True)
        with Daemon(env, home) as daemon:
            daemon.wait(daemon.ticks, "the first look", 120)
            time.sleep(15)
            items = home / "data" / "sample" / "items.csv"
            told = items.read_text(encoding="utf-8")
            start_time = time.time()
            items.write_text(told.replace(",The Odyssey,", ",My Odyssey,"), encoding="utf-8")
            run = daemon.done(0, 1800)
            events = daemon.instance.all_logs(
                run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
            )
            steps = [e.dagster_event.step_materialization_data.materialization for e in events]
            work = sum(float(m.metadata["seconds"].value) for m in steps)
            end = max(e.timestamp for e in events if "champion" in str(e.dagster_event.asset_key))
            record = daemon.instance.get_run_record_by_id(run.run_id)
        waited = record.start_time - start_time
        print(f"run {run.status.value}: {len(steps)} assets; from the edit to the last champion "
              f"{end - start_time:.1f} s, of these {work:.1f} s in the steps; beyond them "
              f"{end - start_time - work:.1f} s (target: at most 60), {waited:.1f} s of it until "
              "the run began")  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["edit"]:
        edit()
    else:
        idle(float(sys.argv[2]) if len(sys.argv) > 2 else 120.0)
