"""Generate: rows of entities -> prompts -> engine and response store -> accepted answers."""

from __future__ import annotations

import dataclasses
import functools
import uuid
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ...data.training import TrainingData
from ...plan import Derive, Generate
from ...prompts.rows import told_items, user_rows
from ..applicable import uncut
from ..checks import safety_checks
from ..context import Outcome, StepContext, StepError, hash_table, save_rows
from ..lineage import columns_read
from ..pictures import fetch_pictures, looks, pictures_version, reader_of
from ..progress import asked
from ..tuned import adapted
from .derive import preview
from .embed import _is_items, _is_splits
from .generate_checks import answer_checks, answer_columns, titles_of
from .safety import check_texts


def sources(node: Generate, ctx: StepContext) -> dict[str, str]:
    """Return the engine in force, the recorded answers' hash and the declared columns."""
    ctx = adapted(node, ctx)
    engine, recorded = _choice(node, ctx)
    if engine not in ("template", "recorded"):
        from ...llm.factory import engine_info

        engine = engine_info(ctx.settings).identity  # weights and tokenizer, not the folder's name
    found = {"engine": engine, "columns": str(sorted(ctx.field_kinds.items()))}
    if looks(node.task) and engine not in ("template", "recorded"):
        found["images"] = pictures_version(node, ctx)
    if recorded is not None:
        from ...data.sources import file_hash

        spec = ctx.description.recorded_for(recorded.task)
        labels = ", labels" if spec.labels_seen else ""
        found["recorded answers"] = file_hash(recorded.path)
        found["their authors saw"] = f"{spec.data_cutoff}{labels}"
        if ctx.settings.accept_contaminated:
            found["contaminated"] = "accepted"
    if safety_checks(node, ctx.settings.safety):
        found["safety checks"] = ctx.settings.safety.version(node.prefix)
    return found


@dataclass(frozen=True)
class Question:
    """Everything that a run of a node asks with: rows, engine, store, sampling, context.

    ``flags`` are those of the answers; ``note`` says why recorded answers could not be used.
    """

    rows: list[dict[str, Any]]
    engine: Any
    store: Any
    sampling: Any
    context: dict[str, Any]
    log: TrainingData | None = None
    flags: tuple[str, ...] = ()
    note: str = ""


def prepare(node: Generate, ctx: StepContext) -> Question:
    """Return what a run of ``node`` asks now; ``StepError`` where inputs lack."""
    from ...llm.protocol import EngineError
    from ...store.responses import ResponseStore

    ctx = adapted(node, ctx)
    log = _log(node, ctx)
    rows = entity_rows(node, ctx)
    try:
        engine, flags, note = _engine(node, ctx, log)
    except EngineError as error:  # another attempt would find the same settings
        raise StepError(f"{node.name}: {error}") from error
    store = ResponseStore(ctx.settings.data / "responses")
    context = prompt_context(ctx)
    if looks(node.task) and "prompts" in engine.info.capabilities:
        fetch_pictures(node, rows, context)
    return Question(rows, engine, store, sampling_of(ctx), context, log, flags, note)


def ask(
    node: Generate, question: Question, ctx: StepContext, *, ids: frozenset[str] | None = None
) -> Any:
    """Run the task over the rows (of a pilot: those of ``ids``) and note what it took."""
    from ...llm.meter import open_meter
    from ...llm.protocol import EngineError
    from ...llm.runner import run_task
    from ..measured import keep

    ctx = adapted(node, ctx)
    rows, engine = question.rows, question.engine
    report, price = ctx.reporter(), ctx.settings.prices.get(ctx.settings.model)
    currency = price.currency if price else ""
    if ids is not None:
        rows = [r for r in rows if str(r.get(node.task.id_column)) in ids]
    meter = None
    try:
        if "prompts" in engine.info.capabilities:
            meter = open_meter(ctx.settings, ctx.run_id or _process_run(), ctx.limits)
        if "metered" in engine.info.capabilities:
            engine.meter = meter
        result = run_task(
            node.task, rows, engine, question.store,
            sampling=question.sampling, meter=meter, context=question.context,
            watch=lambda bar: report(lambda: asked(node.name, bar, currency)),
        )  # fmt: skip
    except EngineError as error:
        raise StepError(f"{node.name}: {error}") from error
    finally:
        engine.close()
        if meter is not None:
            meter.ledger.close()
    keep(node.name, node.task.prompt_revision, engine, result.counts, ctx,
         stopped=bool(result.stopped), pilot=ids is not None)  # fmt: skip
    for text in result.notes:
        ctx.log(f"{node.name}: {text}")
    return result


def run(node: Generate, ctx: StepContext) -> Outcome:
    """Answer the prompt task for every entity of ``node.over``."""
    from ..plans import compared_asset

    question = prepare(node, ctx)
    rows, engine, log = question.rows, question.engine, question.log
    flags, note = question.flags, question.note
    if note:
        ctx.log(f"{node.name}: {note}")
    result = ask(node, question, ctx)
    if result.stopped:
        raise _stopped(node, result)
    table, judged = check_texts(result.rows, safety_checks(node, ctx.settings.safety))
    # Identity of the answers, not of the call: raw texts and keys may differ while rows agree.
    beside = ("raw", "request_key", "reason", "truncated")
    told = [c for c in table.column_names if c not in beside]
    told_from = columns_read(node.inputs, ctx)
    titles = titles_of(next((ctx.load(n) for n in node.context if _is_items(n)), None))
    return Outcome(
        save_rows(table),
        hash_table(table.select(told)),
        rows=table.num_rows,
        counts={**{k: v for k, v in result.counts.items() if k != "rows"}, **judged.counts,
                "model": engine.info.label, **({"note": note} if note else {}),
                **({"notes": "; ".join(result.notes)} if result.notes else {})},
        checks=answer_checks(node, table, rows, log, flags, titles) + judged.checks,
        flags=flags,
        columns=answer_columns(table),
        lineage={c: told_from for c in table.column_names
                 if c not in ("status", "reason", "prompt_revision", "model", "safety")},
        info={"preview": preview(table.select([c for c in table.column_names if c != "raw"]), 3),
              "prompt_revision": node.task.prompt_revision, "model": engine.info.label,
              "data_cutoff": engine.info.data_cutoff,
              "estimate": compared_asset(node.name, ctx)},
        keep=table,
    )  # fmt: skip


def _stopped(node: Generate, result: Any) -> StepError:
    """Return the error of a run that ended early: what is kept, what is missing, the mend."""
    kept = int(result.counts["llm_calls"])
    missing = result.missing
    shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    budget = result.stopped.startswith("budget reached")
    mend = "raise the budget" if budget else "mend that"
    report = {k: v for k, v in result.counts.items() if k not in ("rows", "seconds")}
    report |= {"state": "budget reached" if budget else "failed", "missing": len(missing)}
    if result.notes:
        report["notes"] = "; ".join(result.notes)
    return StepError(
        f"{node.name}: {result.stopped}; {kept} answers are stored and will not be asked for "
        f"again; {len(missing)} of {int(result.counts['rows'])} rows are missing ({shown}); {mend} "
        "and run it once more",
        report,
    )


@functools.cache
def _process_run() -> str:
    """Return a run's name for work outside of Dagster: its budget is that of this process."""
    return f"process-{uuid.uuid4().hex[:12]}"


def pending_asks(node: Generate, ctx: StepContext) -> list[Any] | None:
    """Return the requests of ``node`` that no stored answer serves; None without a model."""
    from ...llm.factory import engine_info
    from ...llm.pending import pending
    from ...store.responses import ResponseStore

    ctx = adapted(node, ctx)
    if _choice(node, ctx)[0] in ("template", "recorded"):
        return None
    store = ResponseStore(ctx.settings.data / "responses")
    return pending(node.task, entity_rows(node, ctx), engine_info(ctx.settings), store,
                   sampling=sampling_of(ctx), context=prompt_context(ctx))  # fmt: skip


def rendered_prompt(node: Generate, row_id: str, ctx: StepContext) -> list[dict[str, Any]]:
    """Return the messages that are rendered for one row now."""
    row = next((r for r in entity_rows(node, ctx) if str(r[node.task.id_column]) == row_id), None)
    from ...llm.pictures import plain_message

    if row is None:
        return []
    return [plain_message(m) for m in node.task.render(row, prompt_context(ctx))]


def prompt_context(ctx: StepContext) -> dict[str, Any]:
    """Return what is equal for all rows: the domain's words, the declared columns, the pictures."""
    rating = ctx.description.interactions.rating
    return {
        "domain": ctx.description.domain or "generic",
        "fields": ctx.field_kinds,
        "rating_max": rating[1] if rating else None,
        "images": reader_of(ctx),
    }


def entity_rows(node: Generate, ctx: StepContext) -> list[dict[str, Any]]:
    """Return one row per entity; a user's history holds training (or history) rows alone."""
    table = ctx.load(node.over)
    if node.task.entity == "scenario":  # few of a kind: each is told beside the rest
        rows = table.to_pylist()
        return [{**r, "others": [o for o in rows if o is not r]} for r in rows]
    if node.task.entity not in ("user", "row"):
        return with_tables_beside(node, table.to_pylist(), ctx)
    log = _log(node, ctx)
    if node.task.entity == "row":
        return position_rows(node, table, log, ctx)
    if log is None:
        raise StepError(f"{node.name}: a task about users needs the splits in its context")
    items = next((ctx.load(n) for n in node.context if _is_items(n)), None)
    rows = with_tables_beside(node, user_rows(table, log, items, ctx.field_kinds), ctx)
    derived = (n for n in node.context if isinstance(n, Derive) and n.how.rows == "candidates")
    offered = next((ctx.load(n) for n in derived), None)
    if offered is None:
        return rows
    lists = candidate_lists(offered, told_items(log, items, ctx.field_kinds), log)
    return [{**row, "candidates": lists.get(str(row["user_id"]), [])} for row in rows]


def with_tables_beside(
    node: Generate, rows: list[dict[str, Any]], ctx: StepContext
) -> list[dict[str, Any]]:
    """Return ``rows`` joined with the tables of entities in the context, by their first column.

    A row that such a table lacks has none of its columns; a row's own columns stand.
    """
    for source in node.context:
        if not isinstance(source, Derive) or source.how.rows != "entities":
            continue
        table = ctx.load(source)
        key = table.column_names[0]
        beside = {row[key]: row for row in table.to_pylist()}
        if rows and key not in rows[0]:
            raise StepError(f"{node.name}: {source.name} is keyed by {key!r}, which the rows of "
                            f"{node.over.name if node.over else '?'} lack")  # fmt: skip
        rows = [{**beside.get(row[key], {}), **row} for row in rows]
    return rows


def candidate_lists(
    offered: pa.Table, told: list[dict[str, Any]], log: TrainingData
) -> dict[str, list[dict[str, Any]]]:
    """Return each user's candidates, best first; ``told`` is what may be said of each item."""
    ranked = offered.sort_by([("user_id", "ascending"), ("rank", "ascending")])
    users, ids = ranked["user_id"].to_pylist(), ranked["item_id"].to_pylist()
    lists: dict[str, list[dict[str, Any]]] = {}
    for user, item_id, position in zip(users, ids, log.items.index(ids), strict=True):
        lists.setdefault(user, []).append({**told[position], "item_id": item_id})
    return lists


def position_rows(
    node: Generate, table: pa.Table, log: TrainingData | None, ctx: StepContext
) -> list[dict[str, Any]]:
    """Return the selected training positions with their item (``noise``) and their window."""
    items = next((ctx.load(n) for n in node.context if _is_items(n)), None)
    if log is None or items is None:
        raise StepError(f"{node.name}: a task about positions needs splits and items in context")
    from ...prompts.titled import titles_by_position, windows_of

    told, ids = told_items(log, items, ctx.field_kinds), log.items.ids
    titles = titles_by_position(items, log)
    found = {(w.user, w.positions[0]): w for w in windows_of(log, titles, node.task.shown, 1)}
    out = []
    users = log.users.index(table["user_id"].to_pylist())
    for row, user in zip(table.to_pylist(), users, strict=True):
        window = found[int(user), row["window"]]
        noise = window.items[window.positions.index(row["position"])]
        names = [{**told[i], "item_id": ids[i - 1]} for i in window.items]
        out.append({**row, "noise": told[noise], "history": names})
    return out


def _log(node: Generate, ctx: StepContext) -> TrainingData | None:
    return next((ctx.load(n) for n in node.context if _is_splits(n)), None)


def _choice(node: Generate, ctx: StepContext) -> tuple[str, Any]:
    """Return (kind of engine, recorded file or None) that answers this node on this data set."""
    from ...data.recorded import recorded_file
    from ...data.view_names import OPAQUE
    from ...plan import snake

    settings = ctx.settings
    if node.llm == "template" or settings.engine == "template":
        return "template", None
    model = settings.engine not in ("auto", "recorded")
    if model and (not settings.recorded_first or node.adapter is not None):
        return settings.engine_identity, None
    spec = ctx.description.recorded_for(snake(type(node.task).__name__))
    if spec is None or settings.view == OPAQUE:  # they were written by titles
        if model:
            return settings.engine_identity, None
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
    from ...data.leakage import LABELS_SEEN, LeakageError, recorded_flags
    from ...llm.factory import make_engine
    from ...plan import snake

    kind, recorded = _choice(node, ctx)
    tells = log is not None and node.task.entity == "user" and uncut(node, ctx.description)
    settings = ctx.settings
    flags: tuple[str, ...] = ()
    note = ""
    if recorded is not None:
        spec = ctx.description.recorded_for(snake(type(node.task).__name__))
        try:
            flags = recorded_flags(spec, log, accept_contaminated=settings.accept_contaminated)
        except LeakageError as error:
            if settings.engine == "recorded":
                raise StepError(f"{node.name}: {error}") from error
            recorded, note = None, f"not the recorded answers: {error}"
            if settings.engine == "auto":
                kind, note = "template", f"template instead: {error}"
    if tells and kind == "template":
        flags = (*flags, LABELS_SEEN)  # as a recorded author who saw the training rows
    elif tells and LABELS_SEEN not in flags:
        raise StepError(f"{node.name}: {tells}")
    if kind == "template":
        settings = dataclasses.replace(settings, engine="template")
    elif recorded is not None:
        settings = dataclasses.replace(settings, engine="recorded")
    scope = "/".join([ctx.dataset, node.slug, log.info.get("split", "") if log else ""])
    engine = make_engine(settings, recorded=recorded, scope=str(scope))
    return engine, flags, note


def engine_for(node: Generate, ctx: StepContext) -> tuple[Any, tuple[str, ...], str]:
    """Return (engine, flags of its answers, a note where recorded answers could not be used)."""
    ctx = adapted(node, ctx)
    return _engine(node, ctx, _log(node, ctx))


def sampling_of(ctx: StepContext) -> Any:
    """Return how answers are drawn, as configured."""
    from ...llm.protocol import Sampling

    s = ctx.settings
    return Sampling(max_tokens=s.max_tokens, temperature=s.temperature, seed=s.llm_seed)
