"""Nearest neighbours by cosine: the ``similar_users`` and item-to-item lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ..data.vectors import VectorTable
from .derivation import DerivedTable, Given

SCORES = 2**22  # cosines computed at a time
SPARE = 16  # candidates beyond k that are ranked again in float64
GATHERED = 2**22  # numbers gathered at a time when ranking again
RECALL = 0.98  # of an inverted file: as many lists are searched as a sample needs for it


@dataclass(frozen=True)
class NearestNeighbours(DerivedTable):
    """The ``k`` most similar rows of each row, itself removed by id.

    Publishes ``item_id|user_id``, ``rank`` from 1, ``other_id``, ``cos``. Rows of equal vectors are
    each other's neighbours; ties go to the smaller id. Rows of mask False, and zero vectors, have
    no neighbours and are nobody's. ``centre`` removes the mean first (anisotropic vectors). Search
    is exact up to ``exact_below`` distinct vectors; beyond, an inverted file (faiss) is searched
    so far that its recall on a sample is 0.98, which is reported.
    """

    k: int = 10
    centre: bool = False
    exact_below: int = 50_000

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"NearestNeighbours(k={self.k}): at least 1 neighbour is needed")

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        table = given.vectors
        rows, unit = _unit_rows(table, self.centre)
        ids = np.array([table.ids[r] for r in rows], dtype=object)
        by_id = np.argsort(ids, kind="stable")
        rows, unit, ids = rows[by_id], unit[by_id], ids[by_id]  # now a smaller row = a smaller id
        distinct, group = _distinct(unit)
        near, cos, info = self._search(distinct)
        lists, values = _expand(near, cos, group, self.k)
        mine, other, value = _without_self(lists[group], values[group], self.k)
        order = np.argsort(rows[mine], kind="stable")  # back to the order of the table
        mine, other, value = mine[order], other[order], value[order]
        first = np.searchsorted(rows[mine], rows[mine])
        out = pa.table({
            f"{table.entity}_id": pa.array(ids[mine], pa.string()),
            "rank": pa.array(np.arange(len(mine)) - first + 1, pa.int32()),
            "other_id": pa.array(ids[other], pa.string()),
            "cos": pa.array(value, pa.float32()),
        })  # fmt: skip
        left_out = len(table.ids) - len(rows)
        return out, {**info, "rows": len(rows), "distinct": len(distinct), "left_out": left_out}

    def _search(self, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        wide = min(len(unit), self.k + 1 + SPARE)
        info: dict[str, Any] = {"search": "exact"}
        if not wide:
            return np.empty((0, 0), np.int64), np.empty((0, 0)), info
        if len(unit) <= self.exact_below:
            blocks = _blocks(len(unit), max(1, SCORES // len(unit)))
            near = np.concatenate([_top(unit, b, wide) for b in blocks])
        else:
            near, info = _inverted(unit, wide, self.k)
        near, cos = _rerank(unit, near)
        return near[:, : self.k + 1], cos[:, : self.k + 1], info


def _unit_rows(table: VectorTable, centre: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the row numbers that take part and their unit vectors float32[m, E]."""
    rows = np.flatnonzero(table.mask)
    vectors = np.array(table.vectors[rows], np.float32)
    if centre and len(rows):
        vectors -= vectors.mean(0, dtype=np.float64).astype(np.float32)
    norm = np.linalg.norm(vectors, axis=1)
    some = norm > 1e-12
    return rows[some], vectors[some] / norm[some, None]


def _distinct(unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return distinct rows float32[m, E], by first occurrence, and the group of each row.

    Equal vectors are compared once: their cosines are then equal by construction, not by luck.
    """
    raw = np.ascontiguousarray(unit).view(np.dtype((np.void, unit.shape[1] * 4))).ravel()
    _, first, group = np.unique(raw, return_index=True, return_inverse=True)
    order = np.argsort(first)
    renumber = np.empty(len(first), np.int64)
    renumber[order] = np.arange(len(first))
    return unit[first[order]], renumber[group]


def _blocks(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _top(unit: np.ndarray, block: slice, wide: int) -> np.ndarray:
    """Return int64[b, wide]: candidates of the largest dot product, in no order."""
    scores = unit[block] @ unit.T
    if wide >= len(unit):
        return np.tile(np.arange(len(unit)), (scores.shape[0], 1))
    # A copy: a view would keep the whole n x n order in memory.
    return np.argpartition(scores, -wide, axis=1)[:, -wide:].copy()


def _rerank(unit: np.ndarray, near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return candidates and cosines by falling cosine, ties by row; -1 marks a missing one.

    float64, rounded to 1e-7: the order must not hang on how a matrix product was blocked.
    """
    cos = np.empty(near.shape)
    for block in _blocks(len(near), max(1, GATHERED // (near.shape[1] * unit.shape[1]))):
        mine = unit[block].astype(np.float64)
        cos[block] = np.einsum("be,bwe->bw", mine, unit[near[block]].astype(np.float64))
    cos = np.where(near < 0, -np.inf, np.round(np.minimum(cos, 1.0), 7))
    order = np.lexsort((near, -cos), axis=1)
    return np.take_along_axis(near, order, 1), np.take_along_axis(cos, order, 1)


def _expand(
    near: np.ndarray, cos: np.ndarray, group: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return int64[m, k + 1] rows and their cosines from lists of distinct vectors; -1 = none."""
    m = len(near)
    rows = np.full((m, k + 1), -1, np.int64)
    values = np.zeros((m, k + 1))
    by_group = np.argsort(group, kind="stable")
    start = np.searchsorted(group[by_group], np.arange(m + 1))
    size = np.minimum(np.diff(start), k + 1)
    filled = np.zeros(m, np.int64)
    for column in range(near.shape[1]):
        for j in range(int(size.max(initial=0))):
            other = near[:, column]
            fits = np.flatnonzero((other >= 0) & (j < size[other]) & (filled <= k))
            if not len(fits):
                break
            rows[fits, filled[fits]] = by_group[start[other[fits]] + j]
            values[fits, filled[fits]] = cos[fits, column]
            filled[fits] += 1
    return rows, values


def _without_self(
    lists: np.ndarray, values: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (row, other row, cosine) of the first ``k`` others, by row and rank."""
    own = lists == np.arange(len(lists))[:, None]
    order = np.argsort(own, axis=1, kind="stable")[:, :k]  # itself, where listed, goes last
    others = np.take_along_axis(lists, order, 1)
    kept = (others >= 0) & ~np.take_along_axis(own, order, 1)
    mine = np.broadcast_to(np.arange(len(lists))[:, None], others.shape)
    return mine[kept], others[kept], np.take_along_axis(values, order, 1)[kept]


def _inverted(
    unit: np.ndarray, wide: int, k: int, queries: np.ndarray | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return candidates from an inverted file, and its recall@k on a sample searched exactly.

    Candidates are those of ``queries``, of ``unit`` itself where there are none.
    """
    import faiss

    asked = unit if queries is None else queries
    lists = max(1, min(int(4 * np.sqrt(len(unit))), len(unit) // 39))  # 39 points train a list
    quantizer = faiss.IndexFlatIP(unit.shape[1])
    index = faiss.IndexIVFFlat(quantizer, unit.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.train(unit)  # k-means under faiss's fixed seed
    index.add(unit)
    sample = np.unique(np.linspace(0, len(asked) - 1, 200).astype(int))
    truth = np.argpartition(asked[sample] @ unit.T, -k, axis=1)[:, -k:]
    index.nprobe, recall = 4, 0.0
    while recall < RECALL and index.nprobe < lists:
        index.nprobe = min(lists, 2 * index.nprobe)
        near = index.search(asked[sample], wide)[1]
        hits = sum(len(np.intersect1d(t, n)) for t, n in zip(truth, near, strict=True))
        recall = hits / truth.size
    info = {"search": "ivf", "lists": lists, "probes": index.nprobe, "recall": recall}
    return index.search(asked, wide)[1].astype(np.int64), info


def nearest_of(
    queries: np.ndarray, base: np.ndarray, k: int, exact_below: int = 50_000
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Return rows of ``base`` int64[q, k] by falling dot product, the products, and facts.

    Ties go to the smaller row. Exact up to ``exact_below`` rows, beyond with an inverted file; -1
    where there is no further row. queries float32[q, D], base float32[m, D].
    """
    wide = min(len(base), k + SPARE)
    info: dict[str, Any] = {"search": "exact"}
    if not len(queries) or not wide:
        return np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0)), info
    if len(base) > exact_below:
        near, info = _inverted(base, wide, min(k, wide), queries)
    else:
        parts = []
        for block in _blocks(len(queries), max(1, SCORES // len(base))):
            scores = queries[block] @ base.T
            order = np.argpartition(scores, -wide, axis=1)[:, -wide:] if wide < len(base) else (
                np.tile(np.arange(len(base)), (len(scores), 1)))  # fmt: skip
            parts.append(order.copy())
        near = np.concatenate(parts)
    value = np.empty(near.shape)
    for block in _blocks(len(near), max(1, GATHERED // (near.shape[1] * base.shape[1]))):
        mine = queries[block].astype(np.float64)
        value[block] = np.einsum("qd,qwd->qw", mine, base[near[block]].astype(np.float64))
    value = np.where(near < 0, -np.inf, value)
    order = np.lexsort((near, -value), axis=1)[:, :k]
    return np.take_along_axis(near, order, 1), np.take_along_axis(value, order, 1), info
