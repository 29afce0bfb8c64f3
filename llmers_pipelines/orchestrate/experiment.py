"""Experiments: a training with other settings, tracked in MLflow, that publishes no version.

Its cell carries an arm of its own, so no evaluation, comparison or gate ever reads it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..models.fit import Fit
from ..models.spaces import FIT
from ..plan import Component, PlanError, Train, canonical, snake
from .cells import EXPERIMENT, Cell, run_cell
from .changed import changed, changed_parts
from .context import StepContext
from .publish import stale_because

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
        made = dataclasses.replace(node, backbone=backbone)
        made = changed_parts(made, wanted.get("parts", {}), "experiment.parts")
    except PlanError as error:
        raise ValueError(str(error)) from error
    check_ranges(made, wanted.get("seed", 0))
    if made.code_version == node.code_version and not wanted.get("seed"):
        raise ValueError(
            "the settings of the experiment are those of the asset; leave experiment out to make "
            "its version"
        )
    return made


def _given(wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in wanted.items() if v is not None and v != {}}


def check_ranges(node: Train, seed: int = 0) -> None:
    """Raise ValueError for a number of ``node`` that no training can have."""
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
