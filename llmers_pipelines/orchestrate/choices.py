"""Teachers that rank with a language model: what they cost, and whether the engine can do it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from ..llm.figures import NOTHING, UNKNOWN, Figure, strata, stratified_total
from ..plan import Node, Teach, Tune
from .context import StepContext, StepError
from .forecast import SAMPLE, around, money_of, time_of
from .publish import stale_because
from .tuned import adapted, cannot_tune

_OPEN = {"calls": UNKNOWN, "repairs": NOTHING, "tokens_in": UNKNOWN, "tokens_out": NOTHING,
         "money": UNKNOWN, "seconds": UNKNOWN, "gpu_hours": UNKNOWN}  # fmt: skip


def asks(node: Node) -> bool:
    """Say whether a step asks a model."""
    return node.verb == "generate" or (isinstance(node, Teach) and node.how.asks_model)


def cannot_rank(node: Node, ctx: StepContext) -> str:
    """Return why the engine in force cannot answer ``node``, "" where it can."""
    from ..llm.choosing import can_choose
    from ..llm.factory import engine_info
    from ..llm.protocol import EngineError

    if isinstance(node, Tune):
        return cannot_tune(node, ctx.settings)
    if isinstance(node, Teach) and node.how.exports == "states":
        return too_shallow(node, ctx)
    if not (isinstance(node, Teach) and node.how.asks_model):
        return ""
    if node.adapter is not None and (why := cannot_tune(node.adapter, ctx.settings)):
        return why
    try:
        info = engine_info(adapted(node, ctx).settings)
    except StepError:
        return ""  # its model is tuned before it is asked, and every tuned model ranks
    except EngineError as error:
        return str(error)
    if can_choose(info):
        return ""
    return (f"the engine in force ({info.label}) has no log-probabilities to rank by; set "
            'llm.engine = "hf" or "vllm" and llm.model, or choose another teacher')  # fmt: skip


def too_shallow(node: Teach, ctx: StepContext) -> str:
    """Return why the tuned model has fewer layers than ``node`` exports, "" where it has enough.

    Read from its configuration: tuning it first would be in vain.
    """
    from ..models.layer_blocks import block_layers
    from .steps.tune import base_of

    tune = next((s for s in node.sources if isinstance(s, Tune)), None)
    try:
        folder = base_of(tune, ctx)[0].folder if tune is not None else None
    except (StepError, ValueError, OSError):
        return ""  # the tuned model's own step says what is wrong with it
    if folder is None or not (folder / "config.json").is_file():
        return ""
    told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    layers = next((told[n] for n in ("num_hidden_layers", "n_layer") if n in told), None)
    try:
        block_layers(int(layers or node.how.blocks), node.how.blocks)
    except ValueError as error:
        return f"{error}; set `blocks`, or tune a deeper model ([tune] model)"
    return ""


def check_engines(nodes: Iterable[Node], ctx: StepContext, *, force: bool = False) -> None:
    """Raise ``StepError`` where a step of this run would find its engine unable.

    Asked before anything runs: what other steps pay for would be paid before it is found.
    """
    changes: set[str] = set()
    for node in nodes:
        if force or stale_because(node, ctx) or changes & {n.name for n in node.inputs}:
            changes.add(node.name)
            if why := cannot_rank(node, ctx):
                raise StepError(f"{node.name}: {why}; nothing was run, asked or paid")


def ranked(node: Teach, ctx: StepContext) -> dict[str, Any]:
    """Return a plan's row of a teacher: one call per question that no stored answer serves.

    A call reads its prompt once and each of its candidates' titles; it writes nothing.
    """
    from ..llm.choosing import missing_choices
    from ..llm.factory import engine_info
    from ..store.responses import ResponseStore
    from .steps.teach import planned_requests

    if why := cannot_rank(node, ctx):
        return {"llm_calls": None, "stored": None, **_OPEN, "notes": [f"cannot run: {why}"],
                "cannot": why}  # fmt: skip
    try:
        ctx = adapted(node, ctx)
        requests, notes = planned_requests(node, ctx)
    except StepError as error:
        why = f"unknown until its inputs are there: {error}"
        return {"llm_calls": None, "stored": None, **_OPEN, "notes": [why]}
    info = engine_info(ctx.settings)
    store = ResponseStore(ctx.settings.data / "responses")
    missing, stored = missing_choices(requests, info, store)
    read, passes = _read(missing, ctx, info, store)
    calls = Figure(len(missing), "rendered", len(missing), len(missing))
    nothing = Figure(0.0, "none", 0.0, 0.0, detail="choices are scored, nothing is written")
    seconds, hours, price = time_of(
        ctx.settings, info, node.how.prompt.prompt_revision, read, nothing
    )
    if missing:
        titles = sum(len(r.choices) for r in missing)
        notes = [*notes, f"{len(missing):,} calls score {titles:,} candidates"
                 + (f" in about {passes:,} passes of llm.batch_tokens" if passes else "")]
    return {
        "rows": len(requests), "askable": len(requests), "cached": len(requests) - len(missing),
        "new": len(missing), "llm_calls": len(missing), "stored": stored, "engine": info.kind,
        "model": info.label, "identity": info.identity, "price_name": info.model,
        "prompt_revision": node.how.prompt.prompt_revision, "calls": calls, "repairs": NOTHING,
        "tokens_in": read, "tokens_out": nothing, "seconds": seconds, "gpu_hours": hours,
        "money": money_of(price, read, nothing, hours, info.model),
        "currency": price.currency if price else "", "notes": notes,
    }  # fmt: skip


def _read(missing: Sequence[Any], ctx: StepContext, info: Any, store: Any) -> tuple[Figure, int]:
    """Return the tokens of prompts and choices, and the forward passes that the hf engine takes.

    A pass holds as many candidates beside the prompt as llm.batch_tokens allows.
    """
    if not missing:
        return NOTHING, 0
    from ..llm.prompt_tokens import prompt_counter, text_counter

    count, how, _ = prompt_counter(ctx.settings, info, store)
    size = text_counter(ctx.settings, info, store)
    tokens: list[tuple[int, list[float]]] = []
    passes: list[tuple[int, list[float]]] = []
    lengths = [sum(map(len, r.choices)) + len(str(r.messages)) for r in missing]
    looked = 0
    for stratum in strata(lengths, SAMPLE, ctx.settings.llm_seed):
        read, taken = [], []
        for place in stratum.chosen:
            prompt = count(missing[place].messages)
            titles = [size(text) for text in missing[place].choices]
            step = max(1, ctx.settings.batch_tokens // math.ceil(prompt + max(titles)))
            read.append(prompt + sum(titles))
            taken.append(1.0 + math.ceil(len(titles) / step))
        tokens.append((stratum.size, read))
        passes.append((stratum.size, taken))
        looked += len(read)
    total, se = stratified_total(tokens)
    whole = looked == len(missing)
    detail = how if whole else f"{how}, on {looked:,} of {len(missing):,} questions"
    figure = Figure(total, "rendered" if whole else "sampled", *around(total, se), se, detail)
    return figure, round(stratified_total(passes)[0]) if info.kind == "hf" else 0
