"""Tuned models as assets: what is tuned, and the engine or encoder that a tuned node works with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..config import Settings
from ..plan import Embed, Generate, Node, PlanError, Table, Teach, Tune, walk
from .context import StepContext, StepError

ADAPTER = "adapter"  # folder of a version of a tuned model


def bound(node: Node, settings: Settings) -> Node:
    """Return a ``Tune``, or what works with one, with the base model written into its identity."""
    if isinstance(node, Tune) and not node.model:
        return dataclasses.replace(node, model=_base_name(node, settings))
    adapter = getattr(node, "adapter", None)
    if adapter is None:
        return node
    if not isinstance(adapter, Tune):
        raise PlanError(f"{node.name}: its adapter is {adapter.name}; give it a Tune")
    wanted = "encoder" if isinstance(node, Embed) else "llm"
    if adapter.how.base != wanted:
        raise PlanError(f"{node.name}: {adapter.name} tunes the {adapter.how.base}, not the "
                        f"{wanted}; choose another objective")  # fmt: skip
    if adapter.how.partial:
        raise PlanError(f"{node.name}: {adapter.name} tunes a part of a model, which no text goes "
                        "through; read it with Derive(DeepStates(), ...)")  # fmt: skip
    if not adapter.how.has_adapter:
        raise PlanError(f"{node.name}: {adapter.name} publishes no adapter; set whole=False of "
                        f"{type(adapter.how).__name__}")  # fmt: skip
    if isinstance(node, Embed):
        if node.encoder:
            raise PlanError(f"{node.name}: the encoder is that of {adapter.name}; name it there")
        return dataclasses.replace(node, model=adapter.model)
    if isinstance(node, Teach) and not node.engine:
        return dataclasses.replace(node, engine=adapter.model)
    if isinstance(node, Generate) and not node.engine:
        sampling = f"{settings.max_tokens}/{settings.temperature}/{settings.llm_seed}"
        return dataclasses.replace(node, engine=f"{adapter.model}#{sampling}")
    return node


def _base_name(node: Tune, settings: Settings) -> str:
    if node.how.base == "encoder":
        return node.base or settings.resolved_encoder
    if node.base:
        raise PlanError(
            f"{node.name}: the language model to tune is chosen by [tune] in llmers.toml"
        )
    model, revision = settings.tuned
    return f"hf:{model}@{revision}"


def adapted(node: Node, ctx: StepContext) -> StepContext:
    """Return ``ctx`` with the tuned model as its engine; ``ctx`` itself for any other node.

    Raises ``StepError`` where the tuned model is not there.
    """
    tune = getattr(node, "adapter", None)
    if tune is None or isinstance(node, Embed):
        return ctx
    model, revision = tuned_model(tune, ctx.settings)
    settings = dataclasses.replace(
        ctx.settings, engine="hf", model=model, model_revision=revision,
        adapter=str(adapter_folder(tune, ctx)), quantization="",
    )  # fmt: skip
    return dataclasses.replace(ctx, settings=settings)


def adapter_folder(tune: Tune, ctx: StepContext) -> Path:
    """Return the adapter of the current version of ``tune``."""
    return ctx.manifests.path(ctx.manifest(tune)) / ADAPTER


def tuned_model(node: Tune, settings: Settings) -> tuple[str, str]:
    """Return model and revision that ``node`` tunes; ``StepError`` where there is none."""
    if why := cannot_tune(node, settings):
        raise StepError(f"{node.name}: {why}")
    return settings.tuned


def cannot_tune(node: Node, settings: Settings) -> str:
    """Return why the configured model of ``node`` cannot be tuned, "" where it can."""
    from ..encode.encoder import tunable

    if not isinstance(node, Tune):
        return ""
    if node.how.base == "encoder":
        if tunable(node.model):
            return ""
        return (f"the encoder {node.model!r} has no weights to tune; set encoder.name to minilm, "
                "a folder or a hub id")  # fmt: skip
    if not settings.tuned[0]:
        return (f'no model to tune: llm.engine is {settings.engine!r}; name a local one under '
                '[tune] model, or set llm.engine = "hf" and llm.model')  # fmt: skip
    if settings.adapter and not settings.tune.model:
        return ("llm.adapter lies over the model already; merge it into the weights, or name the "
                "base under [tune] model")  # fmt: skip
    return ""


def log_of(nodes: Iterable[Node]) -> Table | None:
    """Return the splits below ``nodes``; None where no log is read."""
    found = (n for n in walk(nodes) if isinstance(n, Table) and n.table == "splits")
    return next(found, None)


def shown_pairs(examples: Any) -> tuple[list[str], list[str], int]:
    """Return users, items (one pair per interaction shown) and the rows that tell neither.

    A row about a user has ``user_id`` and ``shown``, a list of item ids; a row about the catalog
    alone has no user.
    """
    users, items, untold = [], [], 0
    if "user_id" not in examples.column_names:
        return users, items, untold
    names = examples["user_id"].to_pylist()
    has = "shown" in examples.column_names
    shown = examples["shown"].to_pylist() if has else [None] * len(names)
    for user, seen in zip(names, shown, strict=True):
        if user is None:
            continue
        untold += seen is None
        users += [user] * len(seen or ())
        items += seen or ()
    return users, items, untold
