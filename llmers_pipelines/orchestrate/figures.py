"""A run and a comparison as plain files with stable bytes, for DVC and for notebooks."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..config import Settings
from ..store.manifests import ManifestStore

_FIGURES = ("base", "enhanced", "difference", "low", "high", "p_corrected")


def write_versions(report: dict[str, Any], dataset: str, path: Path | str) -> None:
    """Write asset -> data version and rows; equal content gives equal bytes, whenever it ran."""
    assets = {
        row["key"]: {"data_version": row["data_version"], "rows": row["rows"]}
        for row in report["assets"]
    }
    _write_json({"dataset": dataset, "assets": assets}, path)


def write_metrics(rows: Sequence[dict[str, Any]], path: Path | str) -> None:
    """Write task -> method -> primary metric on all targets, of a comparison's rows."""
    document: dict[str, dict[str, dict[str, float | None]]] = {}
    for row in _heads(rows):
        names = _FIGURES if not row["is_baseline"] else ("enhanced",)
        figures = {name: row[name] for name in names if row.get(name) is not None}
        document.setdefault(row["task"], {})[row["method"]] = {
            row["metric"] if name == "enhanced" else name: round(float(value), 6)
            for name, value in figures.items()
        }
    _write_json(document, path)


def write_plots(
    settings: Settings, dataset: str, rows: Sequence[dict[str, Any]], folder: Path | str
) -> None:
    """Write ``leaderboard.csv`` (a row per method) and ``epochs.csv`` (a row per epoch)."""
    heads = _heads(rows)
    board = [
        {"task": r["task"], "method": r["method"], "metric": r["metric"], "value": r["enhanced"],
         "base": r["base"], "low": r["low"], "high": r["high"]}
        for r in heads
    ]  # fmt: skip
    _write_csv(board, ("task", "method", "metric", "value", "base", "low", "high"),
               Path(folder) / "leaderboard.csv")  # fmt: skip
    store = ManifestStore(settings.data)
    epochs = []
    for method in sorted({r["method"] for r in heads}):
        manifest = store.current(dataset, f"recommenders/{method}")
        record = store.path(manifest) / "training.json" if manifest is not None else None
        if record is not None and record.is_file():
            for epoch in json.loads(record.read_text())["epochs"]:
                told = {name: epoch.get(name) for name in ("epoch", "train_loss", "valid")}
                epochs.append({"method": method, **told})
    _write_csv(epochs, ("method", "epoch", "train_loss", "valid"), Path(folder) / "epochs.csv")


def _heads(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [r for r in rows if r["slice"] == "all" and r["metric"] == r["primary"]]
    return sorted(found, key=lambda r: (r["task"], -(r["enhanced"] or 0), r["method"]))


def _write_json(document: Any, path: Path | str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


def _write_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, columns, lineterminator="\n")
        out.writeheader()
        for row in rows:
            out.writerow({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})
