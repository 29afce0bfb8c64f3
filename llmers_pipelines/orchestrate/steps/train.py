"""Train: the main arm under the first seed; its weights are what may be registered."""

from __future__ import annotations

import hashlib
import math
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ...plan import Train
from ...store.manifests import CheckOutcome
from ...train.trained import BESIDE
from ..cells import MAIN, run_cell
from ..context import Outcome, StepContext, hash_table


def run(node: Train, ctx: StepContext) -> Outcome:
    """Train ``node`` (or read its cell back) and publish weights, record and predictions."""
    cell = run_cell(node, MAIN, 0, ctx)
    record = cell.record

    def save(folder: Path) -> None:
        # What a later training may start from stays in the cell.
        unserved = shutil.ignore_patterns("state.safetensors", "files.json")
        shutil.copytree(cell.folder, folder, dirs_exist_ok=True, ignore=unserved)

    valid = record["best_valid"]
    finite = valid is not None and math.isfinite(valid) and _finite(cell.folder)
    checks = (
        CheckOutcome("weights_finite", finite, True, {"best_valid": valid}),
        CheckOutcome(
            "frozen_unchanged", bool(record["frozen_unchanged"]), True,
            {"tables": sum(1 for n in node.inputs if n != node.log)},
        ),
        _padding(cell.folder),
    )  # fmt: skip
    return Outcome(
        save,
        _weights_hash(cell.folder),
        rows=1,
        counts={
            "epochs": record["epochs"], "best_epoch": record["best_epoch"],
            "best_valid": valid, "trained_now": str(cell.trained_now),
            "cpu_seconds": record["cpu_seconds"], **_carried(record),
        },
        checks=checks,
        info={"mlflow_run": record["mlflow_run"], "preview": _curve(cell.folder),
              "recipe": node.recipe, **_carried(record)},
    )  # fmt: skip


def _carried(record: dict[str, Any]) -> dict[str, Any]:
    """Return what of an earlier training stands in these weights, for the manifest."""
    told = {k: record[k] for k in ("extended_from", "warm_start_from") if k in record}
    counted = {k: len(record[k]) for k in ("new_items", "unknown_items") if k in record}
    return told | counted


def _weights_hash(folder: Path) -> str:
    """Hash weights and what parts wrote beside them; on a CPU equal seeds give equal bytes."""
    h = hashlib.sha256()
    for name in ("model.json", "weights.safetensors"):
        h.update((folder / name).read_bytes())
    for path in sorted(folder.glob(f"{BESIDE}*.parquet")):
        h.update(f"{path.name} {hash_table(pq.read_table(path))}".encode())
    return h.hexdigest()[:16]


def _finite(folder: Path) -> bool:
    import numpy as np
    from safetensors.numpy import load_file

    arrays = load_file(folder / "weights.safetensors").values()
    return all(np.isfinite(a).all() for a in arrays if a.dtype.kind == "f")


def _padding(folder: Path) -> CheckOutcome:
    """Row 0 of every trained embedding table is padding: zero, whatever the training did."""
    from safetensors.numpy import load_file

    arrays = load_file(folder / "weights.safetensors")
    tables = {n: a for n, a in arrays.items() if n.endswith("table.weight") and a.ndim == 2}
    wrong = sorted(name for name, table in tables.items() if table[0].any())
    details: dict[str, Any] = {"tables": len(tables), "wrong": ", ".join(wrong) or "none"}
    return CheckOutcome("padding", not wrong, True, details)


def _curve(folder: Path) -> str:
    import json

    epochs = json.loads((folder / "training.json").read_text())["epochs"]
    rows = ["| epoch | train loss | validation | seconds |", "|---|---|---|---|"]
    shown = epochs if len(epochs) <= 12 else epochs[:4] + epochs[-8:]
    for e in shown:
        loss = "" if e["train_loss"] is None else f"{e['train_loss']:.4f}"
        valid = "" if e["valid"] is None else f"{e['valid']:.4f}"
        rows.append(f"| {e['epoch']} | {loss} | {valid} | {e['seconds']:.2f} |")
    return "\n".join(rows)
