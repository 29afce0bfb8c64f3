"""What a search found: the best settings, what they gain, and the lines that keep them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...config import Method
from .space import Arm
from .study import Trial

_SHOWN = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # of trials, in the curve


@dataclass(frozen=True)
class Outcome:
    """The trials of one arm, judged by validation."""

    arm: str
    name: str
    dataset: str
    metric: str
    trials: tuple[Trial, ...]
    space: Mapping[str, str]
    method: Method  # with the best settings
    mlflow_run: str

    @property
    def default(self) -> float | None:
        return self.trials[0].value if self.trials else None

    @property
    def best(self) -> Trial | None:
        """The first of the best: an equal value is no gain."""
        ended = [t for t in self.trials if t.value is not None]
        return max(ended, key=lambda t: (t.value, -t.number), default=None)

    @property
    def gain(self) -> float | None:
        if self.best is None or self.best.value is None or self.default is None:
            return None
        return self.best.value - self.default

    def curve(self) -> dict[int, float]:
        """Return the best value after so many trials."""
        out, best = {}, None
        for n, trial in enumerate(self.trials, start=1):
            if trial.value is not None:
                best = trial.value if best is None else max(best, trial.value)
            if best is not None and (n in _SHOWN or n == len(self.trials)):
                out[n] = best
        return out

    def changes(self) -> list[tuple[str, Any, Any, str]]:
        """Return (setting, before, best, range) of everything searched."""
        best = self.best.settings if self.best else {}
        first = self.trials[0].settings if self.trials else {}
        return [(n, first.get(n), best.get(n), told) for n, told in self.space.items()]

    def toml(self) -> str:
        """Return the lines for llmers.toml; those of results.toml are the same table in a row."""
        lines = [f"{name} = {value}" for name, value in _table(self.method).items()]
        return "\n".join(["[[methods]]", *lines])

    def summary(self) -> dict[str, Any]:
        best = self.best
        return {
            "trials": len(self.trials), "pruned": sum(t.pruned for t in self.trials),
            "failed": sum(t.why.startswith("failed") for t in self.trials),
            "default": self.default, "best": best.value if best else None, "gain": self.gain,
            "best_trial": best.number + 1 if best else None,
        }  # fmt: skip

    def document(self) -> dict[str, Any]:
        rows = [
            {"trial": t.number + 1, "value": t.value, "why": t.why, "settings": t.settings,
             "epochs": len(t.epochs), "seconds": t.seconds} for t in self.trials
        ]  # fmt: skip
        return {
            "arm": self.arm, "method": self.name, **self.summary(),
            "settings": self.best.settings if self.best else {}, "space": dict(self.space),
            "curve": {str(n): v for n, v in self.curve().items()}, "toml": self.toml(),
            "mlflow_run": self.mlflow_run, "rows": rows,
        }  # fmt: skip


def outcome_of(arm: Arm, trials: Sequence[Trial], run: str, dataset: str) -> Outcome:
    """Return the outcome of an arm."""
    fit = getattr(arm.node.backbone, "fit", None)
    out = Outcome(
        arm.name, arm.node.slug, dataset, getattr(fit, "metric", "ndcg@10"), tuple(trials),
        {n: str(d) for n, d in arm.space.items()}, arm.method, run,
    )  # fmt: skip
    best = out.best
    if best is None:
        return out
    return dataclasses.replace(out, method=arm.changed(best.settings))


def _table(method: Method) -> dict[str, str]:
    out = {"recipe": json.dumps(method.recipe)}
    if method.backbone:
        out["backbone"] = json.dumps(method.backbone)
    for name in ("settings", "backbone_settings", "part_settings"):
        if table := getattr(method, name):
            out[name] = _inline(table)
    return out


def _inline(value: Any) -> str:
    """Return a value as toml in one row."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{n} = {_inline(v)}" for n, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, float):
        text = repr(value)  # 1e-05 is a float in toml as well
        return text if any(c in text for c in ".en") else f"{text}.0"
    return json.dumps(value, ensure_ascii=False)
