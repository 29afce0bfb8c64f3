"""Generate: rows of entities -> prompts -> engine and response store -> accepted answers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa

from ...data.training import HISTORY, TRAIN, TrainingData
from ...plan import Generate
from ...store.manifests import CheckOutcome
from ..context import Outcome, StepContext, StepError, hash_table, save_rows
from ..lineage import columns_read
from .derive import preview
from .embed import _is_items, _is_splits

ACCEPTED = ("ok", "repaired", "fallback")


def sources(node: Generate, ctx: StepContext) -> dict[str, str]:
    """Return the engine in force, the recorded answers' hash and the declared columns."""
    engine, recorded = _choice(node, ctx)
    if engine not in ("template", "recorded"):
        from ...llm.factory import engine_info

        engine = engine_info(ctx.settings).identity  # weights and tokenizer, not the folder's name
    found = {"engine": engine, "columns": str(sorted(ctx.field_kinds.items()))}
    if recorded is not None:
        from ...data.sources import file_hash

        spec = ctx.description.recorded_for(recorded.task)
        labels = ", labels" if spec.labels_seen else ""
        found["recorded answers"] = file_hash(recorded.path)
        found["their authors saw"] = f"{spec.data_cutoff}{labels}"
        if ctx.settings.accept_contaminated:
            found["contaminated"] = "accepted"
    return found


def run(node: Generate, ctx: StepContext) -> Outcome:
    """Answer the prompt task for every entity of ``node.over``."""
    from ...llm.budget import Budget
    from ...llm.runner import run_task
    from ...store.responses import ResponseStore

    log = _log(node, ctx)
    rows = entity_rows(node, ctx)
    engine, flags, note = _engine(node, ctx, log)
    if note:
        ctx.log(f"{node.name}: {note}")
    budget = Budget(
        int(ctx.limits.get("budget_calls") or ctx.settings.budget_calls),
        int(ctx.limits.get("budget_tokens") or ctx.settings.budget_tokens),
    )
    try:
        result = run_task(
            node.task, rows, engine, ResponseStore(ctx.settings.data / "responses"),
            sampling=_sampling(ctx), budget=budget, context=prompt_context(ctx),
        )  # fmt: skip
    finally:
        engine.close()
    if result.stopped:
        raise StepError(
            f"{node.name}: {result.stopped}; {int(result.counts['llm_calls'])} answers are stored "
            "and will not be asked for again; raise the budget and run it once more"
        )
    table = result.rows
    # Identity of the answers, not of the call: raw texts and keys may differ while rows agree.
    told = [c for c in table.column_names if c not in ("raw", "request_key", "reason")]
    told_from = columns_read(node.inputs, ctx)
    return Outcome(
        save_rows(table),
        hash_table(table.select(told)),
        rows=table.num_rows,
        counts={**{k: v for k, v in result.counts.items() if k != "rows"},
                "model": engine.info.label, **({"note": note} if note else {})},
        checks=_checks(node, table, rows, log, flags),
        flags=flags,
        columns=_columns(table),
        lineage={c: told_from for c in table.column_names
                 if c not in ("status", "reason", "prompt_revision", "model")},
        info={"preview": preview(table.select([c for c in table.column_names if c != "raw"]), 3),
              "prompt_revision": node.task.prompt_revision, "model": engine.info.label,
              "data_cutoff": engine.info.data_cutoff},
        keep=table,
    )  # fmt: skip


def count_requests(node: Generate, ctx: StepContext) -> dict[str, Any]:
    """Return rows, calls and stored answers of a run of ``node``; unknown where inputs lack."""
    from ...llm.runner import preview_task
    from ...store.responses import ResponseStore

    try:
        rows = entity_rows(node, ctx)
        engine, _, _ = _engine(node, ctx, _log(node, ctx))
    except StepError:
        return {"llm_calls": None, "stored": None}
    store = ResponseStore(ctx.settings.data / "responses")
    seen = preview_task(node.task, rows, engine, store, sampling=_sampling(ctx),
                        context=prompt_context(ctx))  # fmt: skip
    return {"rows": seen["rows"], "llm_calls": seen["llm_calls"], "stored": seen["stored"]}


def rendered_prompt(node: Generate, row_id: str, ctx: StepContext) -> list[dict[str, Any]]:
    """Return the messages that are rendered for one row now."""
    row = next((r for r in entity_rows(node, ctx) if str(r[node.task.id_column]) == row_id), None)
    return [dict(m) for m in node.task.render(row, prompt_context(ctx))] if row else []


def prompt_context(ctx: StepContext) -> dict[str, Any]:
    """Return what is equal for all rows: the domain's words and the declared columns."""
    rating = ctx.description.interactions.rating
    return {
        "domain": ctx.description.domain or "generic",
        "fields": ctx.field_kinds,
        "rating_max": rating[1] if rating else None,
    }


def entity_rows(node: Generate, ctx: StepContext) -> list[dict[str, Any]]:
    """Return one row per entity; a user's history holds training (or history) rows alone."""
    table = ctx.load(node.over)
    if node.task.entity == "item":
        return table.to_pylist()
    log = _log(node, ctx)
    if log is None:
        raise StepError(f"{node.name}: a task about users needs the splits in its context")
    items = next((ctx.load(n) for n in node.context if _is_items(n)), None)
    return user_rows(table, log, items, ctx.field_kinds)


def user_rows(
    users: pa.Table, log: TrainingData, items: pa.Table | None, fields: dict[str, str]
) -> list[dict[str, Any]]:
    """Return users with ``history`` (oldest first) from TRAIN rows, or HISTORY rows where a cut
    is declared: then no row that becomes a label is shown (KAR's leak-safe cut)."""
    allowed = HISTORY if (log.split == HISTORY).any() else TRAIN
    told: list[dict[str, Any]] = [{} for _ in range(log.n_items + 1)]
    if items is not None:
        wordy = [c for c in items.column_names
                 if c in ("item_id", "title") or fields.get(c) == "category"]  # fmt: skip
        rows = items.select(wordy).to_pylist()
        for position, row in zip(log.items.index([r["item_id"] for r in rows]), rows, strict=True):
            told[position] = row
    keep = log.split == allowed
    user, item, time = log.user[keep], log.item[keep], log.time[keep]
    rating = None if log.rating is None else log.rating[keep]
    start = np.searchsorted(user, np.arange(log.n_users + 2))
    out = []
    positions = log.users.index(users["user_id"].to_pylist())
    for row, u in zip(users.to_pylist(), positions, strict=True):
        history = []
        for i in range(start[u], start[u + 1]) if u else ():
            entry = {**told[item[i]], "time": int(time[i])}
            if rating is not None and rating[i] == rating[i]:
                entry["rating"] = float(rating[i])
            history.append(entry)
        out.append({**row, "history": history})
    return out


def _log(node: Generate, ctx: StepContext) -> TrainingData | None:
    return next((ctx.load(n) for n in node.context if _is_splits(n)), None)


def _choice(node: Generate, ctx: StepContext) -> tuple[str, Any]:
    """Return (kind of engine, recorded file or None) that answers this node on this data set."""
    from ...data.recorded import recorded_file
    from ...plan import snake

    settings = ctx.settings
    if node.llm == "template" or settings.engine == "template":
        return "template", None
    if settings.engine not in ("auto", "recorded"):
        return settings.engine_identity, None
    spec = ctx.description.recorded_for(snake(type(node.task).__name__))
    if spec is None:
        if settings.engine == "recorded":
            raise StepError(
                f"{node.name}: data set {ctx.dataset!r} declares no recorded answers; declare "
                f"[recorded.{snake(type(node.task).__name__)}] in {ctx.description.file}, or set "
                'llm.engine = "auto"'
            )
        return "template", None
    return "recorded", recorded_file(ctx.description, spec, settings.data_root)


def _engine(
    node: Generate, ctx: StepContext, log: TrainingData | None
) -> tuple[Any, tuple[str, ...], str]:
    """Return (engine, flags of its answers, a note where recorded answers could not be used)."""
    from ...data.leakage import LeakageError, recorded_flags
    from ...llm.factory import make_engine
    from ...plan import snake

    kind, recorded = _choice(node, ctx)
    settings = ctx.settings
    flags: tuple[str, ...] = ()
    note = ""
    if recorded is not None:
        spec = ctx.description.recorded_for(snake(type(node.task).__name__))
        if log is not None or spec.labels_seen:
            try:
                flags = recorded_flags(spec, log, accept_contaminated=settings.accept_contaminated)
            except LeakageError as error:
                if settings.engine == "recorded":
                    raise StepError(f"{node.name}: {error}") from error
                kind, recorded, note = "template", None, f"template instead: {error}"
    if kind == "template":
        settings = dataclasses.replace(settings, engine="template")
    scope = "/".join([ctx.dataset, node.slug, log.info.get("split", "") if log else ""])
    return make_engine(settings, recorded=recorded, scope=str(scope)), flags, note


def _sampling(ctx: StepContext) -> Any:
    from ...llm.protocol import Sampling

    s = ctx.settings
    return Sampling(max_tokens=s.max_tokens, temperature=s.temperature, seed=s.llm_seed)


def _checks(
    node: Generate, table: pa.Table, rows: list[dict[str, Any]], log: TrainingData | None,
    flags: tuple[str, ...],
) -> tuple[CheckOutcome, ...]:  # fmt: skip
    from ...data.leakage import prompt_violations

    violations: list[Any] = []
    shown = 0
    if log is not None and node.task.entity == "user":
        pairs = [(r["user_id"], e["item_id"]) for r in rows for e in r["history"] if "item_id" in e]
        shown = len(pairs)
        violations = prompt_violations(
            log, [u for u, _ in pairs], [i for _, i in pairs],
            history_only=bool((log.split == HISTORY).any()),
        )  # fmt: skip
    status = table["status"].to_pylist()
    accepted = sum(s in ACCEPTED for s in status)
    refused = sum(s == "quarantined" for s in status)
    n = max(1, len(status))
    details: dict[str, Any] = {"interactions shown": shown, "violations": len(violations),
                               "flags": ", ".join(flags) or "none"}  # fmt: skip
    if violations:
        details["why"] = "; ".join(str(v) for v in violations[:3])
    return (
        CheckOutcome("no_leakage", not violations, True, details),
        CheckOutcome("coverage", accepted >= 0.5 * n, False,
                     {"accepted": accepted, "rows": len(status)}),
        CheckOutcome("quarantine_small", refused <= 0.05 * n, False,
                     {"quarantined": refused, "rows": len(status)}),
    )  # fmt: skip


def _columns(table: pa.Table) -> tuple[tuple[str, str, str], ...]:
    notes = {
        "text": "the accepted answer as one text; null where none was accepted",
        "status": "ok, repaired, fallback, no_answer, quarantined",
        "reason": "why an answer was refused or is missing",
        "raw": "the answer as it came, also where it was refused",
        "request_key": "key in the response store",
        "prompt_revision": "task, revision and settings of the prompt",
        "model": "who answered",
    }
    return tuple((f.name, str(f.type), notes.get(f.name, "")) for f in table.schema)
