"""What training returns, and its folder on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ..data.training import TrainingData
from ..models.served import Served, export, load_served, predictions
from ..plan import Train

WEIGHTS, CONFIG, RECORD = "weights.safetensors", "model.json", "training.json"
STATE = "state.safetensors"
BESIDE = "beside_"  # tables that parts write beside the weights


class Interrupted(Exception):
    """Raised by whoever hears of an epoch: the training stops here and is to go on later."""


@dataclass
class Trained:
    """A trained recommender. ``model`` is folded: what is evaluated is what is served."""

    train: Train
    data: TrainingData
    model: Any
    seed: int = 0
    epochs: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_valid: float = float("nan")
    seconds: float = 0.0
    state: dict[str, np.ndarray] = field(default_factory=dict)  # weights before they were folded
    beside: dict[str, Any] = field(default_factory=dict)  # tables that parts wrote, by name

    @property
    def served(self) -> Served:
        return Served(self.model)

    @property
    def reads_times(self) -> bool:
        return self.served.reads_times

    def scores(
        self,
        users: Sequence[int] | np.ndarray,
        histories: Sequence[np.ndarray],
        times: Sequence[np.ndarray] | None = None,
    ) -> np.ndarray:
        """Return float32[B, N + 1] for user positions and histories (item positions, oldest first).

        Column 0 is -inf; seen items are not masked. ``times``: see ``Served.scores``.
        """
        return self.served.scores(users, histories, times)

    def product(
        self,
        users: Sequence[int] | np.ndarray,
        histories: Sequence[np.ndarray],
        times: Sequence[np.ndarray] | None = None,
    ) -> Any:
        """Return the factors of what ``scores`` gives; see ``Served.product``."""
        return self.served.product(users, histories, times)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Return float32[R]: the click probability, or rating, of each row of ``data``."""
        import torch

        from ..models.ranking_net import device_of
        from .loop import load_loader

        backbone, out = self.train.backbone, []
        loader: Any = load_loader(backbone.loader)(self.data, backbone, self.seed)
        with torch.no_grad():
            for batch in loader.rows(np.asarray(rows, np.int64)):
                out.append(predictions(self.model, batch.to(device_of(self.model))).cpu().numpy())
        return np.concatenate(out) if out else np.zeros(0, np.float32)

    def export(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return (config of plain values, arrays), all hooks folded; see ``load_served``."""
        return export(self.model)


def save_trained(trained: Trained, folder: Path) -> None:
    """Write weights (safetensors), configuration and training record into ``folder``."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config, arrays = trained.export()
    save_file(arrays, folder / WEIGHTS)
    if trained.state:
        save_file(trained.state, folder / STATE)
    for name, table in trained.beside.items():
        pq.write_table(table, folder / f"{BESIDE}{name}.parquet", compression="zstd")
    _write(folder / CONFIG, config)
    _write(folder / RECORD, {
        "model": trained.train.name, "task": trained.data.task, "seed": trained.seed,
        "n_users": trained.data.n_users, "n_items": trained.data.n_items,
        "best_epoch": trained.best_epoch, "best_valid": _plain(trained.best_valid),
        "seconds": trained.seconds, "epochs": trained.epochs,
    })  # fmt: skip


def load_export(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what ``Trained.export`` gave for a saved folder."""
    from safetensors.numpy import load_file

    return json.loads((folder / CONFIG).read_text()), load_file(folder / WEIGHTS)


def load_trained(folder: Path, train: Train, data: TrainingData) -> Trained:
    """Return a saved model; ``data`` must be the log with the id maps that it was trained on."""
    record = json.loads((folder / RECORD).read_text())
    for name, found in (("n_users", data.n_users), ("n_items", data.n_items)):
        if record[name] != found:
            raise ValueError(
                f"{folder}: the model was trained with {name} = {record[name]}, the log has "
                f"{found}; load it with the log that it was trained on, or train again"
            )
    net = load_served(*load_export(folder)).net
    valid = record["best_valid"]
    return Trained(
        train, data, net, record["seed"], record["epochs"], record["best_epoch"],
        float("nan") if valid is None else valid, record["seconds"],
    )  # fmt: skip


def _plain(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))
