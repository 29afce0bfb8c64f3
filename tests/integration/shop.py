"""A tiny book shop on disk: files, recorded answers, a choice of methods, and hands to work it."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from click.testing import CliRunner, Result

from llmers_pipelines.cli import main
from llmers_pipelines.config import Settings, load_settings
from llmers_pipelines.orchestrate.build import Plan, build_plan
from llmers_pipelines.orchestrate.context import StepContext
from llmers_pipelines.orchestrate.publish import materialize
from llmers_pipelines.store.manifests import Manifest

USERS, BOOKS, READ = 40, 24, 9
KINDS = ("sea", "crime", "space")
SEQUENTIAL, CTR = "llm2x__sasrec", "kar__deepfm"
SHOP = """
name = "shop"
about = "Forty readers of twenty-four books"
domain = "books"
default_task = "sequential"

[items]
path = "items.csv"
title = "title"

[items.fields]
title = "text"
kind = "category"
description = "text"

[interactions]
path = "interactions.csv"
rating = [1, 5]

[splits.sequential]
protocol = "leave_one_out"

[splits.ctr]
protocol = "time"
label = "rating >= 4"
history = 3

[recorded.item_summary]
path = "item_summary.csv"
data_cutoff = "none"

[recorded.user_preference]
path = "user_preference.csv"
data_cutoff = "ctr"
labels_seen = true
"""
SMALL = "{ dim = 8, inner = 16, max_len = 10, fit = { epochs = 2, min_epochs = 1 } }"
TINY = "{ dim = 4, mlp = [8], fit = { epochs = 2, min_epochs = 1 } }"
TUNED = """
[llmers]
dataset = "shop"
[tune]
model = "{lm}"
[encoder]
name = "tfidf?dim=8"
[evaluation]
controls = []
"""  # methods follow; {lm} is the folder of the tiny model
EXPERIMENT = f"""
[[experiment]]
name = "shop, summaries"
dataset = "shop"
controls = []
encoder = "tfidf?dim=8"
[[experiment.methods]]
recipe = "llm2x"
settings = {{ source = "summary" }}
backbone_settings = {SMALL}
"""
CHOICE = f"""
[llmers]
dataset = "shop"

[encoder]
name = "tfidf?dim=24"

[evaluation]
controls = ["permuted", "template"]

[[methods]]
recipe = "knnblend"
[[methods]]
recipe = "sasrec"
backbone_settings = {SMALL}
[[methods]]
recipe = "llm2x"
settings = {{ source = "summary" }}
backbone_settings = {SMALL}
[[methods]]
recipe = "deepfm"
[[methods]]
recipe = "kar"
backbone = "deepfm"
backbone_settings = {TINY}
"""


@dataclass(frozen=True)
class Shop:
    """The shop below ``home``; every call leaves the environment as it was."""

    home: Path

    @classmethod
    def open(cls, home: Path) -> Shop:
        """Write all files below ``home``."""
        shop = cls(home)
        shop.folder.mkdir(parents=True)
        (shop.folder / "shop.toml").write_text(SHOP)
        (home / "llmers.toml").write_text(CHOICE)
        rng = np.random.default_rng(5)
        shop.write("items", [
            {"item_id": f"b{i:02}", "title": title(i), "kind": kind(i),
             "description": f"A story of {kind(i)}, number {i}."} for i in range(1, BOOKS + 1)
        ])  # fmt: skip
        shop.write("interactions", [
            {"user_id": f"u{u:02}", "item_id": f"b{i:02}", "rating": 5 if kind(i) == kind(u) else 2,
             "timestamp": 1_600_000_000 + 1000 * n + u}
            for u in range(1, USERS + 1) for n, i in enumerate(taste(rng, u))
        ])  # fmt: skip
        shop.write("item_summary", [
            {"item_id": f"b{i:02}", "text": json.dumps({
                "summary": f"{title(i)} follows people who live by {kind(i)}.",
                "themes": [kind(i), f"number {i}"], "mood": "calm", "audience": "adult readers",
            })} for i in range(1, BOOKS + 1)
        ])  # fmt: skip
        shop.write("user_preference", [
            {"user_id": f"u{u:02}", "text": f"Calm stories of {kind(u)} are what reader {u} likes."}
            for u in range(1, USERS + 1)
        ])  # fmt: skip
        return shop

    @property
    def folder(self) -> Path:
        return self.home / "data" / "shop"

    def copy(self, home: Path) -> Shop:
        """Return a shop of its own in the same state (models stay where they were logged)."""
        shutil.copytree(self.home, home, dirs_exist_ok=True)
        return Shop(home)

    def read(self, name: str) -> list[dict[str, Any]]:
        with (self.folder / f"{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def choose(self, toml: str) -> None:
        """Add a section to the shop's llmers.toml."""
        path = self.home / "llmers.toml"
        path.write_text(f"{path.read_text()}\n{toml}\n")

    def write(
        self, name: str, rows: list[dict[str, Any]], quoting: int = csv.QUOTE_MINIMAL
    ) -> None:
        with (self.folder / f"{name}.csv").open("w", newline="") as file:
            out = csv.DictWriter(file, list(rows[0]), quoting=quoting)
            out.writeheader()
            out.writerows(rows)

    def invoke(self, *words: str) -> Result:
        """Run a command of ``llmers`` on this shop in this process."""
        where = ["--home", str(self.home), "--config", str(self.home / "llmers.toml")]
        with same_environment():
            return CliRunner().invoke(main, [*words, *where])

    def ask(self, *words: str, code: int = 0) -> Any:
        """Return the JSON document of a command: stdout holds nothing else."""
        result = self.invoke(*words, "--json")
        told = (result.exit_code, result.stderr, result.exception, result.stdout[-2000:])
        assert result.exit_code == code, [*failures(result.stdout), *told]
        return json.loads(result.stdout)

    def settings(self, **changes: Any) -> Settings:
        with same_environment():
            return load_settings(home=self.home, config=self.home / "llmers.toml", **changes)

    def plan(self, **changes: Any) -> Plan:
        return build_plan(self.settings(**changes))

    def context(self, **changes: Any) -> StepContext:
        return StepContext(self.settings(**changes), "shop")

    def work(self, *words: str, **changes: Any) -> dict[str, str]:
        """Make ``words`` step by step, without Dagster; return what each asset did."""
        settings = self.settings(**changes)
        nodes = build_plan(settings).select(words or ("all",))
        ctx = StepContext(settings, "shop")
        with same_environment():
            settings.apply_environment()
            return {node.name: materialize(node, ctx).status for node in nodes}

    def manifest(self, name: str) -> Manifest:
        found = self.context().manifests.current("shop", name)
        assert found is not None, name
        return found


def failures(stdout: str) -> list[str]:
    """Return what a report of a run says of each asset that failed or is held, and why."""
    try:
        rows = json.loads(stdout).get("assets", [])
    except (ValueError, AttributeError):
        return []
    return [f"{r['key']}: {r['error']}" for r in rows if r.get("error")]


@contextmanager
def same_environment() -> Iterator[None]:
    """Commands set variables for the libraries that they load; other tests must not see them."""
    before = dict(os.environ)
    for name in [n for n in before if n.startswith("LLMERS_")]:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def wrong_lineage(
    shop: Shop, shown: dict[str, Manifest] | None = None, **changes: Any
) -> list[str]:
    """Return each column of lineage that no stored file has; ``shown`` stands for some manifests.

    Schemas are read from the files, so that a manifest cannot vouch for itself. What the plan of
    ``changes`` has and nobody made is left out.
    """
    store = shop.context().manifests
    found = {n.name: store.current("shop", n.name) for n in shop.plan(**changes).nodes}
    manifests = {name: m for name, m in found.items() if m is not None} | (shown or {})
    has = {name: _columns(shop, manifest) for name, manifest in manifests.items()}
    wrong = []
    for name, manifest in manifests.items():
        wrong += [f"{name}.{c} is no column" for c in manifest.lineage if c not in has[name]]
        wrong += [
            f"{name}.{column} comes from {asset}.{source}"
            for column, sources in manifest.lineage.items() for asset, source in sources
            if asset not in manifest.inputs or source not in has[asset]
        ]  # fmt: skip
    return wrong


def _columns(shop: Shop, manifest: Manifest) -> set[str]:
    folder = shop.context().manifests.path(manifest)
    if (folder / "rows.parquet").is_file():
        return set(pq.read_schema(folder / "rows.parquet").names)
    if (folder / "log.npz").is_file():
        with np.load(folder / "log.npz", allow_pickle=False) as arrays:
            return set(arrays.files)
    if (folder / "vectors.npy").is_file():
        entity = json.loads((folder / "ids.json").read_text())["entity"]
        return {f"{entity}_id", "vector", "mask"}
    return set()


def made(statuses: dict[str, str]) -> set[str]:
    """Return the assets that did work."""
    return {name for name, status in statuses.items() if status == "materialized"}


def kind(number: int) -> str:
    return KINDS[number % 3]


def title(number: int) -> str:
    return f"The {kind(number).title()} Book {number}"


def taste(rng: np.random.Generator, user: int) -> list[int]:
    """Return the books that a reader met, most of them of one kind."""
    books = np.arange(1, BOOKS + 1)
    weight = np.where(books % 3 == user % 3, 6.0, 1.0)
    return rng.choice(books, READ, replace=False, p=weight / weight.sum()).tolist()


def summary(body: dict[str, Any]) -> str:
    """Answer as a good model would: about the book that the prompt tells of."""
    title = re.findall(r"The \w+ Book \d+", str(body["messages"]))[-1]
    kind = title.split()[1].lower()
    return json.dumps({
        "summary": f"{title} follows people who live by {kind}.",
        "themes": [kind, f"number {title.split()[-1]}"], "mood": "calm",
        "audience": "adult readers",
    })  # fmt: skip
