"""An earlier training of the same arm: what a retraining may start from, or be spared by.

Where the catalog alone grew (or shrank) by items that no row of the log names, nothing that
training reads has changed: the trained weights stand, and the new items get the rows that the
method makes of their vectors. This is told in the record, with the items of which nothing is known.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.training import IdMap, TrainingData
from ..data.vectors import VectorTable
from ..plan import Node, Pin, Train
from .context import StepContext

STATE = "state.safetensors"  # written by train/trained.py
_LOOKED_AT = 4  # the newest earlier trainings


@dataclass(frozen=True)
class Earlier:
    """A stored training of the same arm and seed on other versions of its inputs."""

    key: str
    record: dict[str, Any]
    training: dict[str, Any]
    folder: Path
    data: TrainingData
    versions: dict[str, str]

    def state(self) -> dict[str, np.ndarray]:
        """Return its weights as they were before folding."""
        from safetensors.numpy import load_file

        return load_file(self.folder / STATE)


def identity(train: Train, arm: str, seed: int) -> dict[str, Any]:
    """Return what two trainings share of which one may go on from the other."""
    # A code version says nothing of inputs: the same part on other vectors is another method.
    reads = [n.name for n in train.inputs]
    return {"code": train.code_version, "wiring": train.wiring, "reads": reads, "arm": arm,
            "seed": seed}  # fmt: skip


def versions_of(train: Train, ctx: StepContext) -> dict[str, str]:
    return {n.name: ctx.manifest(n).data_version for n in train.inputs}


def earlier(train: Train, arm: str, seed: int, ctx: StepContext) -> Iterator[Earlier]:
    """Yield earlier trainings whose log is still stored, newest first."""
    wanted = identity(train, arm, seed)
    folder = ctx.root / "cells" / ctx.dataset
    found = []
    for path in folder.glob("*/cell.json"):
        record = json.loads(path.read_text())
        if record.get("made_from", {}).get("of") == wanted and (path.parent / STATE).is_file():
            found.append((path.stat().st_mtime, path.parent, record))
    found.sort(key=lambda row: row[0], reverse=True)
    for _, place, record in found[:_LOOKED_AT]:
        versions = record["made_from"]["inputs"]
        log = _stored(train.log, versions, ctx)
        if log is not None:
            training = json.loads((place / "training.json").read_text())
            yield Earlier(record["key"], record, training, place, log, versions)


def _stored(node: Node, versions: dict[str, str], ctx: StepContext) -> Any:
    """Return the artifact of ``node`` that a training read, None where it is gone."""
    manifest = ctx.manifests.version(ctx.dataset, node.name, versions.get(node.name, ""))
    if manifest is None or not ctx.manifests.path(manifest).is_dir():
        return None
    return ctx.load_version(node, manifest)


def inputs_then(
    train: Train, before: Earlier, now: dict[Node, Any], ctx: StepContext
) -> dict[Node, Any] | None:
    """Return the inputs of an earlier training where only rows of unseen items differ, else None.

    ``now``: the inputs of today. A table of vectors may have other rows of items that one of the
    two lacks; everything else must be the same version.
    """
    out = {}
    for node, artifact in now.items():
        if before.versions.get(node.name) == ctx.manifest(node).data_version:
            out[node] = artifact
            continue
        old = None if isinstance(node, Pin) else _stored(node, before.versions, ctx)
        vectors = isinstance(old, VectorTable) and isinstance(artifact, VectorTable)
        if not vectors or not _same_vectors(old, artifact):
            return None
        out[node] = old
    return out


def _same_vectors(old: VectorTable, new: VectorTable) -> bool:
    if old.entity != "item" or new.entity != "item" or old.dim != new.dim:
        return False
    there = IdMap(old.ids).index(new.ids)
    here = np.flatnonzero(there)
    rows = there[here] - 1
    return bool(
        np.array_equal(old.vectors[rows], new.vectors[here])
        and np.array_equal(old.mask[rows], new.mask[here])
    )


def same_rows(old: TrainingData, new: TrainingData) -> bool:
    """Say whether two logs differ in items without a row alone (and in the place of others)."""
    if old.task != new.task or old.users.ids != new.users.ids or len(old.item) != len(new.item):
        return False
    if len(old.items) == len(new.items):  # exchanged or moved ones: tables would not tell
        return False
    place = np.concatenate([[0], new.items.index(old.items.ids)])
    same = np.array_equal(place[old.item], new.item) and bool((new.item > 0).all())
    for name in ("user", "time", "split", "rating", "label"):
        a, b = getattr(old, name), getattr(new, name)
        same = same and (a is None) == (b is None) and (a is None or _equal(a, b))
    return bool(same) and _same_fields(old, new, place)


def _same_fields(old: TrainingData, new: TrainingData, place: np.ndarray) -> bool:
    kept = place > 0
    kept[0] = True
    for side, rows in (("item_fields", kept), ("user_fields", None)):
        a, b = getattr(old, side), getattr(new, side)
        if list(a) != list(b):
            return False
        for name in a:
            codes = b[name].codes if rows is None else b[name].codes[place[rows]]
            before = a[name].codes if rows is None else a[name].codes[rows]
            if a[name].vocabulary != b[name].vocabulary or not np.array_equal(before, codes):
                return False
    return True


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def new_items(old: TrainingData, new: TrainingData) -> list[str]:
    """Return the ids that ``old`` lacks, in the order of ``new``."""
    known = old.items.index(new.items.ids) > 0
    return [i for i, k in zip(new.items.ids, known, strict=True) if not k]
