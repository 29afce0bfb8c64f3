"""Cells: one training of one arm under one seed, stored by what it was made from.

A cell is never trained twice: evaluations, comparisons and a resumed command read it back. A
training that was killed goes on from its checkpoint, which goes when the cell is stored.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..data.blind import without_test
from ..data.tasks import CLICK_TASKS
from ..data.training import TEST, VALID, TrainingData
from ..plan import Node, Train, sha
from ..store.fingerprints import read_fingerprint, write_fingerprint
from .budget import settings_of
from .carry import (
    earlier,
    identity,
    inputs_then,
    new_items,
    same_rows,
    versions_of,
)
from .context import StepContext
from .progress import stepped
from .progress import trained as told

MAIN = "main"
EXPERIMENT = "experiment"  # the main arm under settings that are not the asset's
TRIAL = "trial"  # the same in a search for settings: no row of the test split is ever there
_REAL = (MAIN, EXPERIMENT, TRIAL)  # arms that see the inputs as they are


@dataclass(frozen=True)
class Cell:
    """A stored training: folder, its record, and whether this call trained it."""

    folder: Path
    record: dict[str, Any]
    trained_now: bool

    def table(self, split: str) -> pa.Table:
        """Return ranks (one row per target) or click predictions of ``valid`` or ``test``."""
        return pq.read_table(self.folder / f"{split}.parquet")


@dataclass(frozen=True)
class Watch:
    """Who looks on while a cell is trained; ``epoch`` hears each record and may raise to stop."""

    epoch: Callable[[dict[str, Any]], None] = lambda record: None
    tags: Mapping[str, str] = field(default_factory=dict)  # of its MLflow run
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def cell_key(train: Train, arm: str, seed: int, ctx: StepContext) -> str:
    """Return the identity of a cell: code, input data versions, arm and seed."""
    # By position, not by name: two assets with equal content give one cell.
    inputs = [ctx.manifest(n).data_version for n in train.inputs]
    identity = [train.code_version, inputs, arm, seed]
    return sha([*identity, train.wiring] if train.wiring else identity, 20)


def run_cell(
    train: Train, arm: str, seed: int, ctx: StepContext, watch: Watch | None = None
) -> Cell:
    """Return the cell, trained now or read back."""
    if train.backbone.closed_form and arm in _REAL:
        seed = 0  # no randomness: one training answers for every seed
    key = cell_key(train, arm, seed, ctx)
    folder = ctx.root / "cells" / ctx.dataset / key
    if (folder / "cell.json").is_file():
        read_fingerprint(folder)  # fails where a newer version wrote it
        record = json.loads((folder / "cell.json").read_text())
        if ctx.settings.extend or "extended_from" not in record:
            return Cell(folder, record, False)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".tmp-"))
    try:
        record = _train(train, arm, seed, ctx, temporary, watch or Watch())
        (temporary / "cell.json").write_text(json.dumps({"key": key, **record}, indent=1))
        write_fingerprint(temporary)
        os.chmod(temporary, 0o755)
        if folder.is_dir() and _extended(folder) and "extended_from" not in record:
            _replace(temporary, folder)
        elif folder.is_dir():
            shutil.rmtree(temporary)
        else:
            os.rename(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    discard_checkpoint(train, arm, seed, ctx)
    return Cell(folder, json.loads((folder / "cell.json").read_text()), True)


def discard_checkpoint(train: Train, arm: str, seed: int, ctx: StepContext) -> None:
    """Forget how far the training of a cell came."""
    shutil.rmtree(_checkpoint_folder(train, arm, seed, ctx), ignore_errors=True)


def _checkpoint_folder(train: Train, arm: str, seed: int, ctx: StepContext) -> Path:
    return ctx.root / "checkpoints" / ctx.dataset / cell_key(train, arm, seed, ctx)


def _extended(folder: Path) -> bool:
    return "extended_from" in json.loads((folder / "cell.json").read_text())


def _replace(temporary: Path, folder: Path) -> None:
    """Put a training in the place of an extension: full training was asked for."""
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".old-"))
    os.rename(folder, aside / "cell")
    os.rename(temporary, folder)
    shutil.rmtree(aside)


def inputs_of(train: Train, ctx: StepContext) -> dict[Node, Any]:
    """Return the loaded artifact of every node below the backbone and its parts, log excluded."""
    return {n: ctx.load(n) for n in train.inputs if n != train.log}


def _train(
    train: Train, arm: str, seed: int, ctx: StepContext, folder: Path, watch: Watch
) -> dict[str, Any]:
    from ..evaluate.predict import ctr_table, rank_table, rating_table
    from ..train.arms import control_inputs
    from ..train.trained import save_trained

    data: TrainingData = ctx.load(train.log)
    if arm == TRIAL:
        data = without_test(data)
    if told_first := train.backbone.caution(data):
        ctx.log(f"{train.slug}: {told_first}")
    real = inputs_of(train, ctx)
    inputs = real if arm in _REAL else control_inputs(real, arm, seed=seed, log=data)
    started, cpu = time.perf_counter(), time.process_time()
    report = ctx.reporter()
    best: list[tuple[int, float]] = []
    epochs: list[dict[str, Any]] = []  # those before a kill included
    most = getattr(getattr(train.backbone, "fit", None), "epochs", 0)
    name, ended = f"{train.slug} [{arm}, seed {seed}]", started

    def taken() -> float:
        return sum(float(e["seconds"]) for e in epochs)

    def steps(number: int, done: int, of: int) -> None:
        spent = taken() + time.perf_counter() - ended
        report(lambda: stepped(name, number, done, of, most, spent))

    def progress(epoch: dict[str, Any]) -> None:
        nonlocal ended
        ended = time.perf_counter()
        watch.epoch(epoch)
        valid = epoch.get("valid")
        if valid is not None and (not best or valid > best[-1][1]):
            best[:] = [(int(epoch["epoch"]), float(valid))]
        epochs.append(epoch)
        report(lambda: told(name, epochs, best[-1] if best else None, most, taken()))

    frozen_before = {n.name: _hash(a) for n, a in inputs.items()}
    trained, carried, before = _fit(train, arm, seed, ctx, (data, real, inputs), (progress, steps))
    frozen_after = {n.name: _hash(a) for n, a in inputs.items()}
    seconds = time.perf_counter() - started + before.get("seconds", 0.0)
    cpu = time.process_time() - cpu + before.get("cpu_seconds", 0.0)
    save_trained(trained, folder)
    other = rating_table if data.task == "rating" else rank_table
    table = ctr_table if data.task in CLICK_TASKS else other
    splits = (("valid", VALID), *((("test", TEST),) if arm != TRIAL else ()))
    for name, split in splits:
        pq.write_table(table(trained, data, split), folder / f"{name}.parquet", compression="zstd")
    record = {
        "model": train.slug, "arm": arm, "seed": seed, "best_epoch": trained.best_epoch,
        "epochs": len(trained.epochs), "seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2),
        "best_valid": trained.best_valid, "frozen_unchanged": frozen_before == frozen_after,
        "backbone": settings_of(trained.train.backbone),
        "made_from": {"of": identity(train, arm, seed), "inputs": versions_of(train, ctx)},
        **carried,
    }  # fmt: skip
    record["mlflow_run"] = log_run(train, trained.epochs, record, ctx, watch)
    return record


def _fit(
    train: Train, arm: str, seed: int, ctx: StepContext,
    now: tuple[TrainingData, dict[Node, Any], dict[Node, Any]], heard: tuple[Any, Any],
) -> tuple[Any, dict[str, Any], dict[str, float]]:  # fmt: skip
    """Return the trained model, what its record tells of an earlier training, and what was spent
    on this one before it was killed.

    ``now``: the log, the inputs, and the inputs as this arm sees them; ``heard``: who hears of
    epochs, and of steps.
    """
    from ..train.arms import control_inputs
    from ..train.carry_net import carry, extended
    from ..train.loop import fit

    data, real, inputs = now

    def anew(start: Any = None, of: str = "anew") -> tuple[Any, dict[str, float]]:
        kept = _checkpoint(train, arm, seed, ctx, of)
        trained = fit(train, data, inputs, seed=seed, device=ctx.device, progress=heard[0],
                      steps=heard[1], start=start, checkpoint=kept,
                      compiled=ctx.settings.compile)  # fmt: skip
        return trained, kept.earlier if kept else {}

    warm = ctx.limits.get("warm_start", ctx.settings.warm_start)
    goes_on = not train.backbone.closed_form and arm != TRIAL
    # What a part records of a training is of no other one.
    extend = ctx.settings.extend and not any(getattr(p, "writes", "") for p in train.parts)
    for before in earlier(train, arm, seed, ctx) if goes_on and (extend or warm) else ():
        then = inputs_then(train, before, real, ctx) if extend else None
        if then is not None and same_rows(before.data, data):
            if arm not in _REAL:
                then = control_inputs(then, arm, seed=seed, log=before.data)
            found = extended(train, before.state(), (before.data, then), (data, inputs),
                             before.training, seed=seed, device=ctx.device)  # fmt: skip
            if found is not None:
                trained, unknown = found
                told = before.record
                added = [*told.get("new_items", []), *new_items(before.data, data)]
                unknown = [*told.get("unknown_items", []), *unknown]
                ctx.log(f"{train.slug} [{arm}, seed {seed}]: {len(added)} items without "
                        f"interactions more, the weights of cell {before.key} stand")  # fmt: skip
                there = set(data.items.ids)
                return trained, {
                    "extended_from": before.key, "new_items": [i for i in added if i in there],
                    "unknown_items": [i for i in unknown if i in there],
                }, {}
        if warm:
            start = partial(carry, state=before.state(), old=before.data, new=data)
            trained, spent = anew(start, before.key)
            return trained, {"warm_start_from": before.key}, spent
    trained, spent = anew()
    return trained, {}, spent


def _checkpoint(train: Train, arm: str, seed: int, ctx: StepContext, of: str) -> Any:
    """Return where a training is kept while it runs; ``of``: the one that it started from."""
    from ..train.checkpoint_net import Checkpoint

    every = ctx.settings.checkpoint_seconds
    if every <= 0 or train.backbone.closed_form:
        return None
    name = f"{train.slug} [{arm}, seed {seed}]"
    folder = _checkpoint_folder(train, arm, seed, ctx) / of
    return Checkpoint(folder, every, lambda text: ctx.log(f"{name}: {text}"))


def _hash(artifact: Any) -> str:
    hashed = getattr(artifact, "content_hash", None)
    return hashed() if hashed else str(getattr(artifact, "num_rows", ""))


def log_run(
    train: Train, epochs: list[dict[str, Any]], record: Mapping[str, Any], ctx: StepContext,
    watch: Watch,
) -> str:  # fmt: skip
    """Log a training to MLflow: settings, per-epoch metrics, input versions, tags."""
    from ..registry.mlflow_store import MlflowStore

    parts = {f"part{i}": part for i, part in enumerate(train.parts, start=1)}
    own = {"backbone": train.backbone, **parts, "arm": record["arm"], "seed": record["seed"]}
    store = MlflowStore.from_settings(ctx.settings)
    with store.training_run(
        dataset=ctx.dataset,
        task=train.log.task,
        asset_key=train.name,
        params={**own, **watch.params},
        data_versions={n.name: ctx.manifest(n).data_version for n in train.inputs},
        dagster_run_id=ctx.run_id,
        tags={"arm": record["arm"], "seed": str(record["seed"]), **_marks(record["arm"], ctx),
              **watch.tags},
    ) as run:  # fmt: skip
        run.log_epochs(epochs)
        run.log_metrics({"best_valid": record["best_valid"], "seconds": record["seconds"],
                         **watch.metrics})  # fmt: skip
    return run.run_id


def _marks(arm: str, ctx: StepContext) -> dict[str, str]:
    """Return the tags that tell what is tried from what is published."""
    tried = ctx.apart is not None or arm in (EXPERIMENT, TRIAL)
    return {"experiment": "yes", "published": "no"} if tried else {}
