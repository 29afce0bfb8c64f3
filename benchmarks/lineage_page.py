"""How long a person waits for a lineage page of a home with results.

    python benchmarks/lineage_page.py --home HOME --dataset ml1m [--config HOME/llmers.toml]

Each page is asked of a new server process first (no page opened yet; what it opens in the
background is waited for; the files may be in the system's cache), then nineteen times more.
Prints the first time, the median of the others and the largest, and how much memory the server
holds after each page. Pages of which the home lacks the asset are left out.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from llmers_pipelines.config import load_settings
from llmers_pipelines.orchestrate.lineage_url import (
    asset_path,
    dataset_path,
    recommend_path,
    row_path,
)
from llmers_pipelines.orchestrate.trace.stored import verb_of
from llmers_pipelines.store.manifests import ManifestStore

TIMES = 20
_SERVE = "from llmers_pipelines.cli import main; main()"


def pages(store: ManifestStore, dataset: str, item: str, user: str) -> dict[str, str]:
    """Return name -> path of one page of each kind."""
    by_verb: dict[str, list[str]] = {}
    for manifest in store.all(dataset):
        by_verb.setdefault(verb_of(manifest), []).append(manifest.name)
    generated = [n for n in by_verb.get("generate", []) if "__template" not in n]
    features = [*by_verb.get("derive", []), *by_verb.get("embed", [])]
    found = {"home": "/", "data set": dataset_path(dataset)}
    found["items, first page"] = asset_path(dataset, "catalog/items")
    found["items, a search"] = asset_path(dataset, "catalog/items", q="star")
    found["interactions, first page"] = asset_path(dataset, "catalog/interactions")
    found["an item of the catalog"] = row_path(dataset, "catalog/items", item)
    found["a user of the catalog"] = row_path(dataset, "catalog/users", user)
    if generated:
        found[f"a row of {generated[0]}"] = row_path(dataset, generated[0], item)
    if features:
        found[f"a row of {features[0]}"] = row_path(dataset, features[0], item)
    for split in [n for n in by_verb["table"] if "splits" in n][:1]:
        found[f"a user of {split}"] = row_path(dataset, split, user, entity="user")
    for champion in by_verb.get("champion", [])[:1]:
        task = champion.split("__", 1)[1]
        found["a recommendation"] = recommend_path(dataset, task, user)
    return found


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait(port: int, child: subprocess.Popen) -> None:
    for _ in range(600):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        if child.poll() is not None:
            raise SystemExit("the server ended while starting")
        time.sleep(0.1)
    raise SystemExit("the server did not answer within a minute")


def resident(pid: int) -> int:
    """Return MB of memory that a process holds."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) // 1024
    return 0


def settle(pid: int) -> None:
    """Wait until a process has done nothing for two seconds, a minute at most."""
    before, quiet = -1, 0
    for _ in range(600):
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        now = int(told[11]) + int(told[12])
        quiet = quiet + 1 if now == before else 0
        if quiet >= 20:
            return
        before = now
        time.sleep(0.1)


def timed(url: str) -> float:
    start = time.perf_counter()
    with urllib.request.urlopen(url) as answer:
        answer.read()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--config")
    parser.add_argument("--item", default="1", help="An id of an item.")
    parser.add_argument("--user", default="1", help="An id of a user.")
    args = parser.parse_args()
    settings = load_settings(home=args.home, config=args.config)
    found = pages(ManifestStore(settings.data), args.dataset, args.item, args.user)
    words = ["--home", str(settings.home)] + (["--config", args.config] if args.config else [])
    print("| page | first | median | largest | server MB |\n|---|---|---|---|---|")
    for name, path in found.items():
        port = free_port()
        child = subprocess.Popen(
            [sys.executable, "-c", _SERVE, "lineage", "--port", str(port), *words],
            env=os.environ, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait(port, child)
            settle(child.pid)
            url = f"http://127.0.0.1:{port}{path}"
            first, *rest = (timed(url) for _ in range(TIMES))
            middle, most = statistics.median(rest), max(rest)
            print(f"| {name} | {1000 * first:.0f} ms | {1000 * middle:.0f} ms | "
                  f"{1000 * most:.0f} ms | {resident(child.pid)} |", flush=True)  # fmt: skip
        finally:
            child.terminate()
            child.wait(timeout=20)


if __name__ == "__main__":
    main()
