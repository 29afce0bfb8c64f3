"""Retention: what no kept version reaches, counted first and removed on request."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..config import Settings
from ..store.audit import leftovers
from ..store.links import with_relatives
from ..store.manifests import Manifest, ManifestStore
from ..store.responses import ResponseStore
from ..store.usage import money
from ..store.vectors import VectorStore
from .context import StepError
from .reachable import Reachable, experiments, newest, reachable


@dataclass(frozen=True)
class Item:
    """One thing that would go: a version, cell, experiment, vectors, fit, leftover, answers, ..."""

    kind: str
    name: str
    bytes: int
    path: Path | None = None
    manifest: Manifest | None = None


@dataclass
class Pruning:
    """What would go, and what of the answers it cost."""

    items: list[Item] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    kept_vectors: dict[str, np.ndarray | None] = field(default_factory=dict)
    lost_keys: set[str] = field(default_factory=set)

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.items)

    def document(self) -> dict[str, Any]:
        rows = [{"kind": i.kind, "name": i.name, "bytes": i.bytes} for i in self.items]
        return {"items": rows, "bytes": self.bytes, "answers": self.answers}


def plan_pruning(
    settings: Settings, *, keep: int = 2, older_than: float = 7.0, answers: bool = False,
    aliased: bool = False,
) -> Pruning:  # fmt: skip
    """Return what no kept version reaches, older than ``older_than`` days; nothing is removed."""
    age = timedelta(days=older_than)
    found = reachable(settings, keep=keep, older_than=age, aliased=aliased)
    limit = (datetime.now(UTC) - age).timestamp()
    plan = Pruning(kept_vectors=found.vectors())
    _versions(found, plan)
    data = settings.data
    _folders(plan, "cell", data / "cells", found.cells(), limit)
    _folders(plan, "checkpoint", data / "checkpoints", (), limit)
    _folders(plan, "fit", data / "fits", found.slugs("features/"), limit)
    _folders(plan, "fit", data / "encoders", found.slugs("llm_embeddings/"), limit)
    stay = {store.root.parent for store in found.apart}
    for path in (p for p in experiments(settings) if p not in stay):
        plan.items.append(Item("experiment", path.name, _size(path), path))
    _vectors(data, plan, limit)
    for path in leftovers(data):
        plan.items.append(Item("leftover", str(path.relative_to(data)), _size(path), path))
    if answers:
        _answers(settings, found, plan, limit)
    return plan


def prune(settings: Settings, plan: Pruning) -> None:
    """Remove what ``plan`` lists. A killed pruning leaves whole versions or none."""
    data = settings.data
    manifests = ManifestStore(data)
    for item in plan.items:
        if item.manifest is not None:
            manifests.forget(item.manifest)  # first: no manifest names files that are gone
        if item.path is not None:
            _remove(item.path, data)
    store = VectorStore(data / "vectors")
    for identity, space in store.spaces():
        keys = plan.kept_vectors.get(identity)
        if any(i.kind == "vectors" and i.name == identity for i in plan.items):
            space.keep_only(np.empty(0, "S16") if keys is None else keys)
    if plan.lost_keys:
        _drop_answers(ResponseStore(data / "responses"), plan.lost_keys)


def live_runs(settings: Settings) -> list[str]:
    """Return the ids of the runs that are under way: their inputs are not to be touched."""
    import dagster as dg

    from .home import open_instance

    if not settings.dagster_home.is_dir():
        return []
    running = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING,
               dg.DagsterRunStatus.QUEUED]  # fmt: skip
    instance = open_instance(settings)
    return [r.run_id for r in instance.get_runs(filters=dg.RunsFilter(statuses=running))]


def _versions(found: Reachable, plan: Pruning) -> None:
    for (dataset, name, version), manifest in sorted(found.gone.items()):
        path = found.store.path(manifest)
        # Equal content of an older version may lie in the folder of a kept one.
        shared = any(m.folder == manifest.folder for m in found.kept.values())
        there = path.is_dir() and not shared
        plan.items.append(Item(
            "version", f"{dataset}/{name}@{version}", _size(path) if there else 0,
            path if there else None, manifest,
        ))  # fmt: skip
    named = {m.folder for m in (*found.kept.values(), *found.gone.values())}
    yesterday = datetime.now(UTC).timestamp() - 24 * 3600  # a step may be about to name it
    for path in sorted(found.store.warehouse.glob("*/*/*/[!.]*")):
        folder = path.relative_to(found.store.warehouse).as_posix()
        if folder not in named and path.stat().st_mtime < yesterday:
            plan.items.append(Item("version", f"{folder} (no manifest)", _size(path), path))


def _folders(
    plan: Pruning, kind: str, root: Path, kept: Iterable[tuple[str, str]], limit: float
) -> None:
    keep = set(kept)
    for path in sorted(root.glob("*/[!.]*")):
        if (path.parent.name, path.name) not in keep and newest(path) < limit:
            plan.items.append(Item(kind, str(path.relative_to(root.parent)), _size(path), path))


def _vectors(data: Path, plan: Pruning, limit: float) -> None:
    for identity, space in VectorStore(data / "vectors").spaces():
        if identity in plan.kept_vectors and plan.kept_vectors[identity] is None:
            continue  # texts of a kept version are not stored: all may be needed
        keys = plan.kept_vectors.get(identity)
        gone = space.unneeded(np.empty(0, "S16") if keys is None else keys)
        if gone and newest(space.folder) < limit:
            plan.items.append(Item("vectors", identity, gone * (space.dim * 4 + 20)))


def _answers(settings: Settings, found: Reachable, plan: Pruning, limit: float) -> None:
    store = ResponseStore(settings.data / "responses")
    if store.verify():
        raise StepError("the store has faults; run `llmers store verify --quarantine` first")
    keep = with_relatives(store, found.answers())
    rows: list[dict[str, Any]] = []
    share = 0
    stamp = pa.scalar(datetime.fromtimestamp(limit, UTC), pa.timestamp("us", tz="UTC"))
    for segment in store.segments.segments():
        names = ["key", "model", "tokens_in", "tokens_out", "created"]
        table = store.segments.read(segment, names)
        old = table.filter(pc.less(table["created"], stamp))
        gone = [row for row in old.to_pylist() if row["key"] not in keep]
        rows += gone
        share += round(segment.path.stat().st_size * len(gone) / max(len(table), 1))
    if not rows:
        return
    plan.lost_keys = {row["key"] for row in rows}
    plan.answers = {
        "answers": len(rows), "tokens_in": sum(r["tokens_in"] or 0 for r in rows),
        "tokens_out": sum(r["tokens_out"] or 0 for r in rows),
        "paid": money(settings.prices, rows),
    }  # fmt: skip
    plan.items.append(Item("answers", f"{len(rows)} answers that no kept version names", share))


def _drop_answers(store: ResponseStore, keys: set[str]) -> None:
    for segment in store.segments.segments():
        table = store.segments.read(segment)
        keep = [key not in keys for key in table["key"].to_pylist()]
        if not all(keep):
            store.segments.replace(segment, table.filter(pa.array(keep)))


def _remove(path: Path, data: Path) -> None:
    """Move a folder out of sight at once, then delete it."""
    if not path.exists():
        return
    aside = data / f".pruned-{uuid.uuid4().hex}"
    os.rename(path, aside)
    shutil.rmtree(aside) if aside.is_dir() else aside.unlink()


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
