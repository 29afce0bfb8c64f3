"""Experiments: a training with other settings, tracked in MLflow, that publishes no version.

Its cell carries an arm of its own, so no evaluation, comparison or gate ever reads it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..models.fit import Fit
from ..plan import Component, PlanError, Train, canonical, snake
from .build import changed
from .cells import EXPERIMENT, Cell, run_cell
from .context import StepContext
from .publish import stale_because


@dataclass(frozen=True)
class Limit:
    """The range of one number that decides a training."""

    kind: type
    low: float
    high: float
    what: str

    @property
    def about(self) -> str:
        return f"{self.what}, {self.low:,} to {self.high:,}."


FIT = {
    "epochs": Limit(int, 1, 100_000, "Most epochs"),
    "min_epochs": Limit(int, 0, 100_000, "No stop before this epoch"),
    "patience": Limit(int, 1, 100_000, "Evaluations without improvement before the stop"),
    "eval_every": Limit(int, 1, 10_000, "Epochs between evaluations"),
    "lr": Limit(float, 1e-8, 10.0, "Learning rate"),
    "batch": Limit(int, 1, 1_000_000, "Users, pairs or rows of one step"),
    "weight_decay": Limit(float, 0.0, 10.0, "Weight decay"),
    "seed": Limit(int, 0, 2**31 - 1, "Seed; the published model has 0"),
}
WIDTHS = ("dim", "inner", "layers", "heads", "max_len")  # whole numbers above zero, in any part
MOST = 100_000


def experiment_node(node: Train, wanted: Mapping[str, Any]) -> Train:
    """Return ``node`` with the settings of an experiment.

    They go through the same dataclasses as those of llmers.toml: unknown names, other types and
    values outside of their range raise ``ValueError``. The label stays, the code version differs.
    """
    wanted = _given(wanted)
    backbone = node.backbone
    fit = {k: v for k, v in wanted.items() if k in FIT and k != "seed"}
    inner = dict(wanted.get("backbone", {}))
    if fit:
        if not isinstance(getattr(backbone, "fit", None), Fit):
            raise ValueError(
                f"{', '.join(fit)}: {type(backbone).__name__} is solved in closed form, there are "
                "no epochs; change its own settings under backbone"
            )
        inner["fit"] = {**inner.get("fit", {}), **fit}
    try:
        if inner:
            backbone = changed(backbone, inner, "experiment.backbone")
        parts = _parts(node, wanted.get("parts", {}))
    except PlanError as error:
        raise ValueError(str(error)) from error
    made = dataclasses.replace(node, backbone=backbone, **parts)
    _check_ranges(made, wanted)
    if made.code_version == node.code_version and not wanted.get("seed"):
        raise ValueError(
            "the settings of the experiment are those of the asset; leave experiment out to make "
            "its version"
        )
    return made


def _given(wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in wanted.items() if v is not None and v != {}}


def _parts(node: Train, wanted: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    names = {snake(type(p).__name__) for p in node.parts}
    if unknown := sorted(set(wanted) - names):
        raise PlanError(
            f"experiment.parts: {node.name} has no part {unknown[0]!r}; it has "
            f"{', '.join(sorted(names)) or 'none'}"
        )
    out = {}
    for place in ("init", "fuse", "aux"):
        parts = getattr(node, place)
        out[place] = tuple(
            changed(p, wanted[n], f"experiment.parts.{n}")
            if (n := snake(type(p).__name__)) in wanted else p
            for p in parts
        )  # fmt: skip
    return out


def _check_ranges(node: Train, wanted: Mapping[str, Any]) -> None:
    seed = wanted.get("seed", 0)
    fit = getattr(node.backbone, "fit", None)
    found = {"seed": seed, **({k: getattr(fit, k) for k in FIT if k != "seed"} if fit else {})}
    for name, value in found.items():
        limit = FIT[name]
        if not limit.low <= value <= limit.high:
            raise ValueError(f"{name} = {value}: {limit.about}")
    for part in (node.backbone, *node.parts):
        for name, value in _numbers(part):
            if name in WIDTHS and not 1 <= value <= MOST:
                raise ValueError(f"{name} = {value} of {type(part).__name__}: 1 to {MOST:,}")


def _numbers(part: Component) -> Iterator[tuple[str, float]]:
    for f in dataclasses.fields(part):
        value = getattr(part, f.name)
        if isinstance(value, Component):
            yield from _numbers(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f.name, value


@dataclass(frozen=True)
class Tried:
    """An experiment that ran: its cell, what differed, and the published model beside it."""

    cell: Cell
    differs: dict[str, tuple[Any, Any]]
    published: float | None  # best validation metric of the asset's own version
    metric: str


def run_experiment(node: Train, wanted: Mapping[str, Any], ctx: StepContext) -> Tried:
    """Train ``node`` with other settings; equal ones on equal inputs are read back."""
    for source in node.inputs:
        if why := stale_because(source, ctx):
            ctx.log(f"{node.name}: {source.name} is not fresh ({why}); its stored version is used")
    made = experiment_node(node, wanted)
    cell = run_cell(made, EXPERIMENT, int(wanted.get("seed") or 0), ctx)
    have = ctx.manifests.current(ctx.dataset, node.name)
    fit = getattr(made.backbone, "fit", None)
    differs = _differences(node, made)
    if wanted.get("seed"):
        differs["seed"] = (0, wanted["seed"])
    return Tried(
        cell, differs, have.counts.get("best_valid") if have else None,
        getattr(fit, "metric", "validation metric"),
    )  # fmt: skip


def _differences(node: Train, made: Train) -> dict[str, tuple[Any, Any]]:
    before, after = _flat(node), _flat(made)
    return {k: (before.get(k), v) for k, v in after.items() if before.get(k) != v}


def _flat(node: Train) -> dict[str, Any]:
    out: dict[str, Any] = {}

    def visit(prefix: str, value: Component) -> None:
        for f in dataclasses.fields(value):
            inner = getattr(value, f.name)
            if isinstance(inner, Component):
                visit(f"{prefix}.{f.name}", inner)
            elif f.compare:
                out[f"{prefix}.{f.name}"] = canonical(inner, inputs=False)

    visit("backbone", node.backbone)
    for n, part in enumerate(node.parts, start=1):
        visit(f"part {n} ({snake(type(part).__name__)})", part)
    return out
