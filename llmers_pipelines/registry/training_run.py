"""What one training leaves in MLflow: settings, epochs, metrics and the data versions it saw."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_TAG_LENGTH = 4000  # of a run tag; longer texts are cut with a mark
_BATCH = 100  # params that one request may carry
_METRICS = 1000  # metrics that one request may carry


def tag_value(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _TAG_LENGTH else text[: _TAG_LENGTH - 4] + " ..."


def metric_key(name: str) -> str:
    """Return ``name`` in MLflow's alphabet: ``ndcg@10`` becomes ``ndcg_at_10``."""
    return re.sub(r"[^\w\-. :/]", "_", name.replace("@", "_at_"))


def flat_params(value: Any, prefix: str = "") -> dict[str, str]:
    """Flatten nested settings: ``{"fit": Fit(lr=0.1)}`` becomes ``{"fit.lr": "0.1", ...}``."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {
            "kind": type(value).__name__,
            **{f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.repr},
        }
    if isinstance(value, Mapping):
        out: dict[str, str] = {}
        for name, inner in value.items():
            out |= flat_params(inner, f"{prefix}.{name}" if prefix else str(name))
        return out
    return {metric_key(prefix): str(value)[:_TAG_LENGTH]}


@dataclass(frozen=True)
class TrainingRun:
    """An open run; ``page`` is its address below the UI's."""

    client: Any
    run_id: str
    experiment_id: str

    @property
    def page(self) -> str:
        return f"#/experiments/{self.experiment_id}/runs/{self.run_id}"

    def log_params(self, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        rows = [Param(k, v) for k, v in params.items()]
        for start in range(0, len(rows), _BATCH):
            self.client.log_batch(self.run_id, params=rows[start : start + _BATCH])

    def log_inputs(self, data_versions: Mapping[str, str]) -> None:
        """Record what was trained on, both as params (comparable) and as dataset inputs."""
        from mlflow.entities import Dataset, DatasetInput

        self.log_params({f"data.{metric_key(k)}": v for k, v in data_versions.items()})
        rows = [
            DatasetInput(Dataset(name=key, digest=version[:36], source_type="asset", source=key))
            for key, version in data_versions.items()
        ]
        if rows:
            self.client.log_inputs(self.run_id, datasets=rows)

    def log_epochs(self, epochs: Iterable[Mapping[str, Any]]) -> None:
        """Record ``Trained.epochs``: one step per epoch, every numeric entry a metric."""
        self._log((int(row.get("epoch", i)), name, value)
                  for i, row in enumerate(epochs) for name, value in row.items()
                  if name != "epoch")  # fmt: skip

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        self._log((step, name, value) for name, value in metrics.items())

    def tag(self, tags: Mapping[str, Any]) -> None:
        for key, value in tags.items():
            self.client.set_tag(self.run_id, key, tag_value(value))

    def _log(self, rows: Iterable[tuple[int, str, Any]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(metric_key(name), float(value), now, step)
            for step, name, value in rows
            if isinstance(value, (int, float)) and not isinstance(value, bool)
            and math.isfinite(value)
        ]  # fmt: skip
        for start in range(0, len(metrics), _METRICS):
            self.client.log_batch(self.run_id, metrics=metrics[start : start + _METRICS])
