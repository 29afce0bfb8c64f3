"""An experiment with another language model or encoder: what depends on it, made in a place apart.

The place is ``<data>/experiments/<models>/``, laid out as the data folder is: versions, fits,
trainings. What does not depend on the change is read where it is published. Answers, vectors, bills
and MLflow are shared with everything else, so that nothing is asked or paid for twice.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import Settings
from ..plan import Embed, Generate, Node, Pin, PlanError, Teach, rewrite, safe, sha, walk
from ..store.manifests import Manifest, ManifestStore
from ..store.overlay import Overlay
from .build import bind
from .context import StepContext, StepError, why_held
from .other_models import (
    ENCODER,
    LLM,
    asks_configured,
    encodes_configured,
    identity_of,
    limits_of,
    other_settings,
    reads,
)
from .publish import materialize, stale_because

COUNTED = ("llm_calls", "cache_hits", "tokens_in", "tokens_out", "money", "encoded")


@dataclass(frozen=True)
class Chain:
    """``node`` as other models make it: what has to be made below it, in order, and by whom."""

    node: Any
    changed: tuple[Node, ...]  # without ``node``
    settings: Settings
    before: Settings
    limits: Mapping[str, Any]

    @property
    def differs(self) -> dict[str, tuple[str, str]]:
        """What of the models is another one: name -> (as it is, in the experiment)."""
        was = _models(self.before)
        return {name: (was[name], now) for name, now in self.models.items() if was[name] != now}

    @property
    def models(self) -> dict[str, str]:
        return _models(self.settings)

    @property
    def folder(self) -> Path:
        """Its place. Experiments with the same models share it, and so what they made."""
        now = {name: pair[1] for name, pair in self.differs.items()}
        names = [self.settings.model or self.settings.engine] if LLM in now else []
        names += [now[ENCODER]] if ENCODER in now else []
        readable = "__".join(safe(Path(n).name)[:32] for n in names)
        return self.before.data / "experiments" / f"{readable}__{sha(now, 12)}"


def _models(settings: Settings) -> dict[str, str]:
    return {LLM: identity_of(settings), ENCODER: settings.resolved_encoder}


def wants_models(wanted: Mapping[str, Any]) -> bool:
    return bool(wanted.get(LLM) or wanted.get(ENCODER))


def chain_of(node: Node, wanted: Mapping[str, Any], settings: Settings) -> Chain:
    """Return what an experiment with other models changes at and below ``node``.

    Pins stand: what they point at was made on purpose. ``ValueError`` where nothing would differ.
    """
    below = reads(node)
    for name, has, what in (
        (LLM, asks_configured, "asks the language model"),
        (ENCODER, encodes_configured, "reads the encoder"),
    ):
        if wanted.get(name) and not any(has(n) for n in below):
            raise ValueError(f"{name}: nothing that {node.name} is made of {what}")
    other = other_settings(settings, wanted)
    stands: dict[Node, Node] = {n: n for n in below if isinstance(n, Pin)}
    try:
        made = bind(rewrite(node, _unbound, stands), other)
    except PlanError as error:
        raise ValueError(str(error)) from error
    published = {n.digest for n in below}
    there = set(reads(made))
    changed = tuple(n for n in walk([made]) if n in there and n.digest not in published)
    for name, has in ((LLM, asks_configured), (ENCODER, encodes_configured)):
        if wanted.get(name) and not any(has(n) for n in changed):
            raise ValueError(
                f"{name}: the asset is made with that already; leave {name} out, or name another"
            )
    return Chain(made, tuple(n for n in changed if n != made), other, settings, limits_of(wanted))


def _unbound(node: Node) -> Node:
    """Return ``node`` without the model that its identity names, where that is the configured."""
    if isinstance(node, (Generate, Teach)) and asks_configured(node):
        return dataclasses.replace(node, engine="")
    if isinstance(node, Embed) and encodes_configured(node):
        return dataclasses.replace(node, model="")
    return node


def apart(chain: Chain, ctx: StepContext) -> StepContext:
    """Return a context that reads what is published and writes in the place of ``chain``."""
    own = {n.name for n in (*chain.changed, chain.node)}
    chain.folder.mkdir(parents=True, exist_ok=True)
    (chain.folder / "experiment.json").write_text(json.dumps(chain.models, indent=1))
    return dataclasses.replace(
        ctx, settings=chain.settings, limits={**ctx.limits, **chain.limits},
        apart=Overlay(chain.folder, ManifestStore(ctx.settings.data), own), _cache={},
    )  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A version in the place apart. ``now``: this call made it; ``counts``: its bill, with that of
    attempts that a budget stopped before."""

    manifest: Manifest
    now: bool
    counts: Mapping[str, float]


def make(nodes: Sequence[Node], ctx: StepContext) -> tuple[Made, ...]:
    """Make ``nodes`` where ``ctx`` (of ``apart``) keeps them; those that are there stand."""
    for node in dict.fromkeys(n for made in nodes for n in made.inputs if n not in nodes):
        if why := stale_because(node, ctx):
            ctx.log(f"{node.name} is not fresh ({why}); its stored version is used")
    return tuple(_one(node, ctx) for node in nodes)


def _one(node: Node, ctx: StepContext) -> Made:
    try:
        step = materialize(node, ctx)
    except StepError as error:
        _book(node, ctx, _counted(error.report), done=False)
        raise
    manifest, now = step.manifest, step.status == "materialized"
    spent = _counted(manifest.counts) if now else {}
    counts = _book(node, ctx, spent, done=not manifest.held_by)
    told = "".join(f", {k} {v:,g}" for k, v in counts.items())
    how = "made: " if now else "there already, made once with "
    ctx.log(f"{node.name}: EXPERIMENT, {how}{manifest.rows:,} rows{told}; not published")
    if manifest.held_by:
        raise StepError(
            f"{node.name} of the experiment failed its blocking check {manifest.held_by[0]!r}: "
            f"{why_held(manifest)}; nothing was published"
        )
    return Made(manifest, now, counts)


def bill(made: Iterable[Made]) -> dict[str, float]:
    """Return calls, tokens, money and encoded texts of all together."""
    return _sum(m.counts for m in made)


def _counted(counts: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(counts[name]) for name in COUNTED if name in counts}


def _sum(counts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    rows = list(counts)
    names = [name for name in COUNTED if any(name in row for row in rows)]
    return {name: sum(row.get(name, 0.0) for row in rows) for name in names}


def _book(
    node: Node, ctx: StepContext, counts: dict[str, float], *, done: bool
) -> dict[str, float]:
    """Add an attempt to the bill of ``node``, and return the bill of the version that stands."""
    path = ctx.root / "bills" / ctx.dataset / f"{'__'.join(node.key)}.json"
    known = json.loads(path.read_text()) if path.is_file() else {"stopped": {}, "done": {}}
    if not counts:
        return known["done"]
    both = _sum((known["stopped"], counts))
    if done:
        if "cache_hits" in both:  # what earlier attempts bought was paid for here
            bought = known["stopped"].get("llm_calls", 0.0)
            both["cache_hits"] = max(0.0, counts["cache_hits"] - bought)
        known = {"stopped": {}, "done": both}
    else:
        known["stopped"] = both
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known))
    return known["done"]
