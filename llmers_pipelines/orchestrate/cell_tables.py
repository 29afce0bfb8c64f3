"""What a stored training says beside its ranks: made from its weights when first asked for.

Each table is kept in the cell's folder, so that no later question runs the model again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..data.training import TEST, TrainingData
from ..plan import Train
from .cells import Cell

LIST = 10  # items of a list
AMONG = ("cold", "warm")


def lists(cell: Cell, train: Train, data: TrainingData) -> Any:
    """Return the ``TopK`` of the test users."""
    from ..evaluate.predict import TopK, top_k_lists

    def make(model: Any) -> pa.Table:
        top = top_k_lists(model, data, LIST)
        return pa.table({"user": top.users, "items": pa.array(list(top.items))})

    table = _kept(cell, f"lists_{LIST}.parquet", train, data, make)
    items = np.stack(table["items"].to_numpy()) if table.num_rows else np.zeros((0, LIST), int)
    return TopK(table["user"].to_numpy(), items.astype(np.int64))


def among(cell: Cell, train: Train, data: TrainingData, kind: str) -> pa.Table:
    """Return the ranks at test where candidates and targets are cold, or warm, items alone.

    Cold items have no training interaction.
    """
    from ..evaluate.predict import rank_table

    only = (data.train_counts == 0) == (kind == "cold")
    only[0] = False
    return _kept(
        cell, f"test_{kind}.parquet", train, data,
        lambda model: rank_table(model, data, TEST, only=only),
    )  # fmt: skip


def against_sample(
    cell: Cell, train: Train, data: TrainingData, negatives: int, draw: str
) -> pa.Table:
    """Return the ranks at test among ``negatives`` drawn items (``evaluate/sampled``)."""
    from ..evaluate.sampled import sampled_rank_table

    return _kept(
        cell, f"test_{negatives}{draw[0]}.parquet", train, data,
        lambda model: sampled_rank_table(model, data, TEST, negatives=negatives, draw=draw),
    )  # fmt: skip


def explored(cell: Cell, train: Train, data: TrainingData) -> pa.Table:
    """Return what exploration along the served tree costs and gives (``evaluate/exploration``)."""
    from ..evaluate.exploration import curve

    return _kept(cell, "explored.parquet", train, data, lambda model: curve(model, data))


def _kept(
    cell: Cell, name: str, train: Train, data: TrainingData, make: Callable[[Any], pa.Table]
) -> pa.Table:
    path = cell.folder / name
    if not path.is_file():
        from ..train.trained import load_trained

        table = make(load_trained(cell.folder, train, data))
        with tempfile.NamedTemporaryFile(dir=cell.folder, prefix=".tmp-", delete=False) as file:
            pq.write_table(table, file, compression="zstd")
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    return pq.read_table(path)
