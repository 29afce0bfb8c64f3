"""Experiments: a training with other settings, tracked in MLflow, that publishes no version.

Its cell carries an arm of its own, so no evaluation, comparison or gate ever reads it. With another
language model or encoder its inputs are made in a place apart (``chain.py``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..config import Settings
from ..models.fit import Fit
from ..models.spaces import FIT, MOST, WIDTHS
from ..plan import Component, Node, PlanError, Train, canonical, snake
from .cells import EXPERIMENT, Cell, Watch, run_cell
from .chain import Made, apart, bill, chain_of, make, wants_models
from .changed import changed, changed_parts
from .context import StepContext
from .other_models import check_usable
from .publish import stale_because


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
    same = made.code_version == node.code_version and not wanted.get("seed")
    if same and not wants_models(wanted):
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
    made: tuple[Made, ...] = ()  # below the training, by other models


@dataclass(frozen=True)
class TriedTable:
    """Answers, vectors or rankings by other models: not published, and what differed."""

    made: tuple[Made, ...]  # the last one is the asset's
    folder: str
    differs: dict[str, tuple[Any, Any]]


def check_experiment(node: Node, wanted: Mapping[str, Any], settings: Settings) -> None:
    """Raise ``ValueError`` for what an experiment would stumble over; nothing costly is done."""
    wanted = _given(wanted)
    if wants_models(wanted):
        chain = chain_of(node, wanted, settings)
        check_usable((*chain.changed, chain.node), chain.settings, wanted)
        node = chain.node
    if isinstance(node, Train):
        experiment_node(node, wanted)


def run_experiment(node: Train, wanted: Mapping[str, Any], ctx: StepContext) -> Tried:
    """Train ``node`` with other settings; equal ones on equal inputs are read back."""
    have = ctx.manifests.current(ctx.dataset, node.name)
    differs: dict[str, tuple[Any, Any]] = {}
    below, watch = (), Watch()
    if wants_models(wanted):
        chain = chain_of(node, wanted, ctx.settings)
        node, ctx, differs = chain.node, apart(chain, ctx), {**chain.differs}
        below = make(chain.changed, ctx)
        watch = Watch(params=chain.models, metrics=bill(below))
    for source in node.inputs:
        if why := stale_because(source, ctx):
            ctx.log(f"{node.name}: {source.name} is not fresh ({why}); its stored version is used")
    made = experiment_node(node, wanted)
    cell = run_cell(made, EXPERIMENT, int(wanted.get("seed") or 0), ctx, watch)
    fit = getattr(made.backbone, "fit", None)
    differs |= _differences(node, made)
    if wanted.get("seed"):
        differs["seed"] = (0, wanted["seed"])
    return Tried(
        cell, differs, have.counts.get("best_valid") if have else None,
        getattr(fit, "metric", "validation metric"), below,
    )  # fmt: skip


def run_table(node: Node, wanted: Mapping[str, Any], ctx: StepContext) -> TriedTable:
    """Make the answers, vectors or rankings of ``node`` by other models, in a place apart."""
    chain = chain_of(node, wanted, ctx.settings)
    ctx = apart(chain, ctx)
    made = make((*chain.changed, chain.node), ctx)
    return TriedTable(made, str(ctx.manifests.path(made[-1].manifest)), chain.differs)


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
