"""A tiny book shop: files, recorded answers and an llmers.toml, written below one folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

USERS, BOOKS, ROWS = 40, 24, 9
KINDS = ("sea", "crime", "space")
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
"""
CHOICE = """
[llmers]
dataset = "shop"

[encoder]
name = "tfidf?dim=24"

[evaluation]
controls = ["permuted", "template"]

[[methods]]
recipe = "itemknn"
[[methods]]
recipe = "knnblend"
[[methods]]
recipe = "sasrec"
backbone_settings = {small}
[[methods]]
recipe = "llm2x"
settings = {{ source = "summary" }}
backbone_settings = {small}
"""
SMALL = "{ dim = 8, inner = 16, max_len = 10, fit = { epochs = 2, min_epochs = 1 } }"


def open_shop(home: Path) -> Path:
    """Write the shop and its choice of methods below ``home`` and return the shop's folder."""
    folder = home / "data" / "shop"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(5)
    write_rows(folder / "items.csv", [
        {"item_id": f"b{i:02}", "title": f"The {KINDS[i % 3].title()} Book {i}",
         "kind": KINDS[i % 3], "description": f"A story of {KINDS[i % 3]} and number {i}."}
        for i in range(1, BOOKS + 1)
    ])  # fmt: skip
    write_rows(folder / "interactions.csv", [
        {"user_id": f"u{u:02}", "item_id": f"b{i + 1:02}", "timestamp": 1_600_000_000 + 50 * n + u,
         "rating": 5 if i % 3 == u % 3 else 2}
        for u in range(1, USERS + 1)
        for n, i in enumerate(_taste(rng, u % 3))
    ])  # fmt: skip
    write_rows(folder / "item_summary.csv", [
        {"item_id": f"b{i:02}", "text": json.dumps({
            "summary": f"The {KINDS[i % 3].title()} Book {i} follows people who live by {KINDS[i % 3]}.",
            "themes": [KINDS[i % 3], f"number {i}"], "mood": "calm", "audience": "adult readers",
        })}
        for i in range(1, BOOKS + 1)
    ])  # fmt: skip
    (folder / "shop.toml").write_text(SHOP)
    (home / "llmers.toml").write_text(CHOICE.format(small=SMALL))
    return folder


def _taste(rng: np.random.Generator, kind: int) -> list[int]:
    """Return nine books, most of them of one kind."""
    weight = np.where(np.arange(BOOKS) % 3 == kind, 6.0, 1.0)
    return rng.choice(BOOKS, ROWS, replace=False, p=weight / weight.sum()).tolist()


def write_rows(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, list(rows[0]))
        out.writeheader()
        out.writerows(rows)


def read_rows(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
