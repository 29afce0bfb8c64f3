"""The probe of a model's memory of a data set: asked once, graded, kept."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ..plan import Table, walk
from .build import Plan
from .context import StepContext, StepError
from .memorised import base_identity, place
from .publish import materialize
from .steps.generate import sampling_of

MODELS = ("hf", "vllm", "openai")


def probe(plan: Plan, ctx: StepContext, *, count: int = 200, seed: int = 0) -> dict[str, Any]:
    """Ask what is not stored, grade all and keep the result; a second call asks nothing.

    Raises ``StepError`` where no language model is configured, or no log is loaded.
    """
    from ..llm.factory import make_engine
    from ..llm.meter import open_meter
    from ..llm.runner import run_task
    from ..prompts.memory import completion, graded, probes, row_of
    from ..store.responses import ResponseStore

    if ctx.settings.engine not in MODELS:
        raise StepError(
            f"llm.engine is {ctx.settings.engine!r}: a memory is a language model's; set "
            f"llm.engine to one of {', '.join(MODELS)}, and llm.model"
        )
    log, items, users = _tables(plan, ctx)
    about = ctx.description.users
    fields = [f.name for f in about.fields.values()] if about is not None else []
    asked = probes(log, items, users, fields, count, seed)
    told = f"{ctx.description.name}: {ctx.description.about}"
    rows = [row_of(p, told) for p in asked]
    store = ResponseStore(ctx.settings.data / "responses")
    engine: Any = make_engine(ctx.settings)
    meter = open_meter(ctx.settings, ctx.run_id or f"memory of {ctx.dataset}")
    try:
        if "metered" in engine.info.capabilities:
            engine.meter = meter
        result = run_task(
            completion(), rows, engine, store, sampling=sampling_of(ctx), meter=meter
        )
    finally:
        engine.close()
        meter.ledger.close()
    if result.stopped:
        raise StepError(f"the budget ended the probe: {result.stopped}; what was answered is kept")
    answers = dict(zip(result.rows["probe_id"].to_pylist(), result.rows["text"].to_pylist(),
                       strict=True))  # fmt: skip
    found = graded(asked, {k: v or "" for k, v in answers.items()})
    report = {
        "dataset": ctx.dataset, "model": engine.info.label, "identity": engine.info.identity,
        "base": base_identity(ctx.settings),
        "count": count, "seed": seed, "kinds": found, "known": any(r["known"] for r in found),
        "llm_calls": int(result.counts["llm_calls"]), "stored": int(result.counts["cache_hits"]),
    }  # fmt: skip
    _keep(place(ctx), report)
    return report


def _tables(plan: Plan, ctx: StepContext) -> tuple[Any, Any, Any]:
    logs = [n for n in plan.nodes if isinstance(n, Table) and n.table == "splits"
            and n.task in ctx.description.tasks]  # fmt: skip
    if not logs:
        raise StepError(f"no method that is loaded reads a log of {ctx.dataset!r}; choose one in "
                        "llmers.toml")  # fmt: skip
    for node in walk(logs[:1]):
        materialize(node, ctx)
    tables = {n.table: ctx.load(n) for n in logs[0].of if isinstance(n, Table)}
    users = tables.get("users")
    return ctx.load(logs[0]), tables["items"], users if users is not None and len(users) else None


def _keep(path: Path, report: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(json.dumps(report, indent=1) + "\n")
    os.replace(temporary, path)
