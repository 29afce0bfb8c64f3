"""A small catalog, its log and untrained models, shared by the tests of the registry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from llmers_pipelines.data.training import IdMap, TrainingData
from llmers_pipelines.models.bprmf import BPRMF
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.models.served import export
from llmers_pipelines.registry.bundle import write_bundle

torch.set_num_threads(1)

U, N = 6, 12
META = {"dataset": "books", "model": "sasrec", "data_versions": {"catalog/items": "v1"}}


def make_log(n_users: int = U, n_items: int = N, seed: int = 0, **changes) -> TrainingData:
    """Each user has 3-5 rows; the last is test, the one before valid. Item 1 is popular."""
    rng = np.random.default_rng(seed)
    user, item, split = [], [], []
    for u in range(1, n_users + 1):
        n = int(rng.integers(3, 6))
        row = [1, *(2 + rng.permutation(n_items - 1)[: n - 1])]
        user += [u] * n
        item += row
        split += [0] * (n - 2) + [1, 2]
    values = {
        "task": "sequential",
        "users": IdMap(tuple(f"u{i}" for i in range(n_users, 0, -1))),
        "items": IdMap(tuple(f"b{i}" for i in range(1, n_items + 1))),
        "user": np.array(user), "item": np.array(item), "time": np.arange(len(user)),
        "split": np.array(split, np.int8),
    }  # fmt: skip
    return TrainingData(**{**values, **changes})


def make_items(n_items: int = N) -> pa.Table:
    """Rows in reverse order, one item that no log has, one log item (b3) without a row."""
    rows = [i for i in range(n_items, 0, -1) if i != 3]
    return pa.table({
        "item_id": [f"b{i}" for i in rows] + ["never_seen"],
        "title": [f"Book {i}" for i in rows] + ["Ghost"],
        "author": ["Ann" if i % 2 else "Bob" for i in rows] + ["Ann"],
        "genres": ["crime|drama" if i % 3 else "poetry" for i in rows] + ["crime"],
        "blurb": [f"text number {i}, unlike any other" for i in rows] + ["ghost"],
        "year": [2000 + i % 3 for i in rows] + [2000],
    })


def sasrec(n_items: int = N, dim: int = 8):
    settings = SASRec(dim=dim, layers=1, heads=2, inner=16, dropout=0.0, max_len=10, table_std=0.5)
    return settings.build(make_log(n_items=n_items), 0).eval()


def factors(objective: str = "ssm", n_items: int = N):
    settings = BPRMF(dim=8, loss=objective, table_std=0.5)
    return settings.build(make_log(n_items=n_items), 0).eval()


def write(folder: Path, net, data: TrainingData | None = None, **more) -> Path:
    data = data or make_log()
    config, arrays = export(net)
    items = make_items(data.n_items)
    given = {"items": items, "meta": META, **more}
    return write_bundle(folder, config=config, arrays=arrays, data=data, **given)
