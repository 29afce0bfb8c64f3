"""Fits that are kept: a new row meets the old fit, since a new fit would rotate every vector.

A kept fit carries *anchors*: some of the rows that it was made from. A fit belongs to a table when
enough anchors still have their vectors there. So editing texts or adding items keeps the fit, while
another encoder (no anchor matches) gets a fit of its own, and switching back finds the first again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.training import IdMap
from ..data.vectors import VectorTable
from ..store.vectors import publish_once

ANCHORS = 64
SAME = 0.05  # relative distance below which a vector counts as unchanged (cosine above .998)
SHARE = 0.1  # of the anchors still in the table, how many must be unchanged


@dataclass(frozen=True)
class Kept:
    """Arrays of a fit and facts about it; ``reused`` says that it was not made just now."""

    arrays: dict[str, np.ndarray]
    info: dict[str, Any]
    reused: bool


def kept_fit(
    folder: Path | None,
    name: str,
    table: VectorTable,
    rows: np.ndarray,
    make: Callable[[np.ndarray], tuple[dict[str, np.ndarray], dict[str, Any]]],
) -> Kept:
    """Return the fit ``name`` that belongs to ``table``, or make one on its ``rows`` and keep it.

    ``rows`` are row numbers int64[n] that may be fitted on. Without a folder a fit is made anew.
    """
    if folder is not None:
        for path in sorted(folder.glob(f"{name}__*.safetensors")):
            kept = _load(path)
            if _belongs(kept, table):
                return kept
    if not len(rows):
        raise ValueError(
            f"{name}: none of the {len(table.ids)} rows of the {table.entity} vectors can be "
            "fitted on (no text, or no training interaction); nothing to reduce"
        )
    arrays, info = make(rows)
    ids = [table.ids[r] for r in rows]
    info = {**info, "fit_rows": len(rows), "fit_ids_sha256": ids_sha256(ids)}
    if folder is not None:
        at = rows[np.unique(np.linspace(0, len(rows) - 1, ANCHORS).astype(int))]
        anchors = np.asarray(table.vectors[at], np.float32)
        _save(folder, name, arrays | {"anchors": anchors}, [table.ids[r] for r in at], info)
    return Kept(arrays, info, reused=False)


def ids_sha256(ids: list[str]) -> str:
    """Return the hash by which a fit remembers the rows that it was made on."""
    return hashlib.sha256(json.dumps(sorted(ids)).encode()).hexdigest()[:16]


def _belongs(kept: Kept, table: VectorTable) -> bool:
    anchors = kept.arrays["anchors"]
    if anchors.shape[1] != table.dim:
        return False
    position = IdMap(table.ids).index(kept.info["anchor_ids"])
    here = position > 0
    here[here] = table.mask[position[here] - 1]
    if not here.any():
        return False
    now = np.asarray(table.vectors[position[here] - 1], np.float32)
    moved = np.linalg.norm(now - anchors[here], axis=1)
    same = moved <= SAME * np.linalg.norm(anchors[here], axis=1)
    return bool(same.mean() >= SHARE)


def _save(
    folder: Path,
    name: str,
    arrays: dict[str, np.ndarray],
    anchor_ids: list[str],
    info: dict[str, Any],
) -> None:
    from safetensors.numpy import save

    arrays = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
    facts = json.dumps(info | {"anchor_ids": anchor_ids}, ensure_ascii=False)
    mark = hashlib.sha256(arrays["anchors"].tobytes()).hexdigest()[:8]
    publish_once(folder / f"{name}__{mark}.safetensors", save(arrays, {"fit": facts}))


def _load(path: Path) -> Kept:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as stored:
        info = json.loads(stored.metadata()["fit"])
        return Kept({k: stored.get_tensor(k) for k in stored.keys()}, info, reused=True)  # noqa: SIM118
