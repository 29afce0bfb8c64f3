"""How far vectors moved between two versions, row by row and as neighbourhoods."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ...data.training import IdMap
from ...data.vectors import VectorTable
from .form import Moved, VectorDrift

MOVED = 10
NEIGHBOURS = 10
SAMPLE = 300  # rows whose neighbours are compared
_BLOCK = 16_384
_EQUAL = 1 - 1e-6


def vector_drift(
    before: VectorTable, after: VectorTable, folders: tuple[Path, Path],
    titles: Mapping[str, str],
) -> VectorDrift:  # fmt: skip
    """Compare two vector tables by id; rows without text in either are counted, not compared."""
    at = IdMap(before.ids).index(after.ids) - 1  # row of each new id in ``before``, -1 where none
    new = np.flatnonzero(at >= 0)
    old = at[new]
    was, now = before.mask[old], after.mask[new]
    both = was & now
    gone = sorted(set(before.ids) - set(after.ids))
    told: dict[str, Any] = {
        "before": len(before.ids), "after": len(after.ids),
        "added": int((at < 0).sum()), "removed": len(gone),
        "known_gained": int((~was & now).sum()), "known_lost": int((was & ~now).sum()),
        "compared": int(both.sum()), "width": (before.dim, after.dim),
        "added_examples": tuple(after.ids[i] for i in np.flatnonzero(at < 0)[:5]),
        "removed_examples": tuple(gone[:5]),
    }  # fmt: skip
    if before.dim != after.dim:
        why = f"vectors of width {before.dim} and {after.dim} lie in different spaces"
        return VectorDrift(**told, incomparable=why)
    if before.entity != after.entity or not both.any():
        return VectorDrift(**told, incomparable="no row has a vector in both versions")
    old, new = old[both], new[both]
    cosine = row_cosines(before.vectors, old, after.vectors, new)
    same_text = _same_texts(folders, [after.ids[i] for i in new])
    order = np.argsort(cosine, kind="stable")[:MOVED]
    sample = np.random.default_rng(0).permutation(len(new))[:SAMPLE]
    texts: dict[str, Any] = {}
    if same_text is not None:
        texts["texts_changed"] = int((~same_text).sum())
        texts["mean_same_text"] = float(cosine[same_text].mean()) if same_text.any() else None
    return VectorDrift(
        **told, **texts,
        mean=float(cosine.mean()), p5=float(np.percentile(cosine, 5)), least=float(cosine.min()),
        unmoved=float((cosine >= _EQUAL).mean()),
        overlap=neighbour_overlap(before.vectors, old, after.vectors, new, sample),
        sampled=len(sample),
        moved=tuple(
            Moved(after.ids[new[i]], titles.get(after.ids[new[i]]), round(float(cosine[i]), 4),
                  None if same_text is None else not same_text[i])
            for i in order if cosine[i] < _EQUAL
        ),
    )  # fmt: skip


def row_cosines(
    one: np.ndarray, rows_one: np.ndarray, two: np.ndarray, rows_two: np.ndarray
) -> np.ndarray:
    """Return float[n], the cosine of row ``rows_one[i]`` to row ``rows_two[i]``; 1 of two zeros."""
    out = np.empty(len(rows_one))
    for start in range(0, len(out), _BLOCK):
        a = np.asarray(one[rows_one[start : start + _BLOCK]], np.float64)
        b = np.asarray(two[rows_two[start : start + _BLOCK]], np.float64)
        norm = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        equal = (a == b).all(1)
        cosine = np.einsum("ij,ij->i", a, b) / np.maximum(norm, 1e-12)
        out[start : start + _BLOCK] = np.where(equal, 1.0, np.clip(cosine, -1, 1))
    return out


def neighbour_overlap(
    one: np.ndarray, rows_one: np.ndarray, two: np.ndarray, rows_two: np.ndarray,
    sample: np.ndarray, k: int = NEIGHBOURS,
) -> float | None:  # fmt: skip
    """Return the mean share of its k nearest rows that a sampled row keeps; None for one row.

    Neighbours are sought among the compared rows, so that rows that came or went do not count.
    """
    k = min(k, len(rows_one) - 1)
    if k < 1 or not len(sample):
        return None
    first, second = (_nearest(v, rows, sample, k) for v, rows in ((one, rows_one), (two, rows_two)))
    kept = [len(set(a) & set(b)) / k for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    return float(np.mean(kept))


def _nearest(vectors: np.ndarray, rows: np.ndarray, sample: np.ndarray, k: int) -> np.ndarray:
    unit = np.asarray(vectors[rows], np.float32)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    scores = unit[sample] @ unit.T
    scores[np.arange(len(sample)), sample] = -np.inf
    return np.argpartition(-scores, k - 1, axis=1)[:, :k]


def _same_texts(folders: tuple[Path, Path], ids: list[str]) -> np.ndarray | None:
    files = [f / "texts.parquet" for f in folders]
    if not all(f.is_file() for f in files):
        return None
    old, new = (dict(zip(t.column(0).to_pylist(), t["text"].to_pylist(), strict=True))
                for t in map(pq.read_table, files))  # fmt: skip
    return np.array([old.get(i) == new.get(i) for i in ids])
