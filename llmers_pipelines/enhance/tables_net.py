"""Initial rows of embedding tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..data.training import TRAIN
from ..models.histories import rows_of, unique_pairs
from ..models.sparse_net import csr

if TYPE_CHECKING:
    from ..data.training import IdMap, TrainingData
    from ..data.vectors import VectorTable


def scaled_rows(
    vectors: VectorTable, ids: IdMap, table: Tensor, scale: str | float, side: str, name: str
) -> tuple[Tensor, Tensor]:
    """Return (float32 (n + 1, D), bool (n + 1,)): scaled vectors by position, and which are real.

    Raises ValueError where the vectors are of the other entity, have another width than ``table``,
    belong to no entity of the log, are not finite, or are all equal (no scale could match).
    """
    if vectors.entity != side:
        raise ValueError(f"{name}: vectors of {vectors.entity}s, expected vectors of {side}s")
    if vectors.dim != table.shape[1]:
        raise ValueError(
            f"{name}: vectors of width {vectors.dim}, the {side} table has width {table.shape[1]}; "
            f"reduce the vectors (for example with PCA(dim={table.shape[1]})) or set the "
            f"backbone's dim to {vectors.dim}"
        )
    if why := vectors.untold(ids):
        raise ValueError(f"{name}: {why}")
    aligned, mask = vectors.aligned(ids)
    rows, real = torch.from_numpy(aligned), torch.from_numpy(mask)
    if not bool(torch.isfinite(rows[real]).all()):
        row = int(torch.nonzero(~torch.isfinite(rows).all(1))[0])
        raise ValueError(f"{name}: the vector of {side} {ids.ids[row - 1]!r} is not finite")
    if scale == "match":
        spread = float(rows[real].std())
        if spread <= 0:
            raise ValueError(f"{name}: all entries of the vectors are equal; nothing to start from")
        scale = start_std(table) / spread
    return rows * float(scale), real


def start_std(table: Tensor) -> float:
    """Return the standard deviation of the entries that ``table`` (n + 1, D) was drawn with.

    Zero rows (padding, ids that training does not meet) were not drawn.
    """
    rows = table.detach()[1:]
    drawn = rows.any(1)
    return float((rows if bool(drawn.all()) else rows[drawn]).std())


def mean_of_items(items: Tensor, real: Tensor, data: TrainingData) -> tuple[Tensor, Tensor]:
    """Return (float32 (U + 1, D), bool (U + 1,)): mean of the ``real`` training items' rows.

    Each item counts once per user; the second is False for users without such an item.
    """
    log = rows_of(data, (TRAIN,))
    user, item = unique_pairs(log.user, log.item, data.n_items)
    with_row = real.numpy()[item]
    user, item = user[with_row], item[with_row]
    counts = np.bincount(user, minlength=data.n_users + 1)
    start = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]))
    ones = torch.ones(len(item))
    picked = csr(start, torch.from_numpy(item), ones, (data.n_users + 1, len(items)))
    degree = torch.from_numpy(counts)
    return (picked @ items) / degree.clamp(min=1)[:, None], degree > 0


def overwrite(table: Tensor, rows: Tensor, where: Tensor) -> None:
    """Write ``rows`` into ``table`` where ``where``; row 0 (padding) is never written."""
    where = where.clone()
    where[0] = False
    with torch.no_grad():
        table[where] = rows[where].to(table.device, table.dtype)


def item_vectors(table: VectorTable, ids: IdMap, name: str, *, missing: str) -> Tensor:
    """Return float32 (N + 1, E): vectors of items by position, row 0 zero.

    Items without a vector get the ``"mean"`` of the real ones or ``"zero"``. Raises ValueError for
    vectors of users and where no row is an item of the log.
    """
    if table.entity != "item":
        raise ValueError(f"{name}: vectors of {table.entity}s, expected vectors of items")
    if why := table.untold(ids):
        raise ValueError(f"{name}: {why}")
    aligned, mask = table.aligned(ids)
    vectors, real = torch.from_numpy(aligned), torch.from_numpy(mask)
    vectors[~real] = vectors[real].mean(0) if missing == "mean" else 0
    vectors[0] = 0
    return vectors
