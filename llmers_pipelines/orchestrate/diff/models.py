"""Metrics of two evaluations, and how far the arrays of two trained models moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from .form import MetricChange, WeightChange

_SLICES = ("all", "tail_items")


def metric_changes(before: Path, after: Path) -> tuple[MetricChange, ...]:
    """Return each metric over all rows and over tail items, of both evaluations."""
    old, new = (_metrics(f / "rows.parquet") for f in (before, after))
    none: dict[str, Any] = {}
    return tuple(
        MetricChange(
            *key, *(found.get(key, none).get("enhanced") for found in (old, new)),
            *(_gain(found.get(key, none)) for found in (old, new)),
        )
        for key in dict.fromkeys((*old, *new))
    )  # fmt: skip


def _metrics(file: Path) -> dict[tuple[str, str], dict[str, Any]]:
    rows = pq.read_table(file).to_pylist()
    return {(r["metric"], r["slice"]): r for r in rows if r["slice"] in _SLICES}


def _gain(row: dict[str, Any]) -> float | None:
    """Return the difference to the base; a baseline has none."""
    return row.get("difference") if row.get("base_method") else None


def weight_changes(before: Path, after: Path) -> tuple[WeightChange, ...]:
    """Return each array of either model, those that moved most first."""
    from safetensors import safe_open

    out = []
    with (
        safe_open(before / "weights.safetensors", framework="numpy") as old,
        safe_open(after / "weights.safetensors", framework="numpy") as new,
    ):
        names = dict.fromkeys([*old.keys(), *new.keys()])
        for name in names:
            a = old.get_tensor(name) if name in old.keys() else None  # noqa: SIM118
            b = new.get_tensor(name) if name in new.keys() else None  # noqa: SIM118
            out.append(_weight(name, a, b))
    return tuple(sorted(out, key=lambda w: -(np.inf if w.relative is None else w.relative)))


def _weight(name: str, a: np.ndarray | None, b: np.ndarray | None) -> WeightChange:
    shape = (_shape(a), _shape(b))
    norms = [None if v is None else float(np.linalg.norm(v.astype(np.float64))) for v in (a, b)]
    relative = cosine = None
    if a is not None and b is not None and a.shape == b.shape:
        one, two = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
        moved, size = np.linalg.norm(two - one), norms[0] or 0.0
        relative = float(moved / size) if size else (0.0 if not moved else None)
        both = size * (norms[1] or 0.0)
        cosine = float(one @ two / both) if both else None
    return WeightChange(name, shape, norms[0], norms[1], relative, cosine)


def _shape(array: np.ndarray | None) -> str:
    return "none" if array is None else "x".join(map(str, array.shape)) or "1"
