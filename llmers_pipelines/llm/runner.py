"""Runs a prompt task over rows: each answer is paid for once, kept raw, checked, repaired once.

render -> which keys are stored -> one call per different key -> store as answers arrive -> parse ->
ground -> ask once more with the reason -> quarantine. Engines only answer; the rest is here and in
``asking``.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from ..prompts.task import Context, PromptTask, Row
from ..store.responses import ResponseStore
from .asking import Ask, Asker, keyed
from .budget import Budget
from .meter import Meter
from .outcome import Outcome, to_table
from .progress import Progress, Report, Watch
from .protocol import Engine, EngineInfo, GenRequest, GenResult, Sampling

COUNTS = ("rows", "llm_calls", "cache_hits", "recorded", "templated", "deduped", "repaired",
          "quarantined", "no_answer", "fallback", "truncated", "attempts", "throttled",
          "tokens_in", "tokens_out", "tokens_cached", "money")  # fmt: skip
FINAL = ("refusal", "content_filter")  # ends of an answer that asking again does not change
Rows = pa.Table | Iterable[Row]


@dataclass(frozen=True)
class RunResult:
    """``rows``: one row per input row, in its order.

    ``stopped``: why the run ended early (a budget, a dead endpoint); ``missing``: ids of the rows
    that it left without an answer. ``notes``: what a person should know of the engine.
    """

    rows: pa.Table
    counts: dict[str, float]
    stopped: str = ""
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def run_task(
    task: PromptTask,
    rows: Rows,
    engine: Engine,
    store: ResponseStore | None,
    *,
    sampling: Sampling = Sampling(),
    budget: Budget | None = None,
    meter: Meter | None = None,
    progress: Report | bool | None = None,
    watch: Watch | None = None,
    context: Context = None,
    fallback: bool = False,
    flush_rows: int = 500,
    flush_seconds: float = 30.0,
) -> RunResult:
    """Return the accepted answers of ``task`` for ``rows`` and what they cost.

    ``budget`` bounds this call alone; a ``meter`` also the run and the day that it belongs to.
    ``store`` may be None only for the template engine. ``progress``: None shows it on stderr,
    False is silent, a function is called with (done, total, tokens); ``watch`` is called with the
    ``Progress`` after each answer. With ``fallback`` a row
    without an accepted answer gets the template's text, status "fallback" and the reason. Raises
    ``ValueError`` where rows have no id or share one; a row's own failure is a status.
    """
    began = time.perf_counter()
    given = by_id(rows, task)
    context = told_context(context, engine.info)
    about = {"task": task.produces, "prompt_revision": task.prompt_revision}
    template = engine.info.kind == "template"
    writer = None
    if store is not None and not template:
        # Answers that cost money outlive a kill one by one, others flush by flush.
        paid = "metered" in engine.info.capabilities or bool(meter and meter.price)
        writer = store.writer(flush_rows=flush_rows, flush_seconds=flush_seconds, journal=paid)
    title = f"{task.produces} ({engine.info.kind})"
    with Progress(title, progress, watch=watch) as bar, writer or nullcontext():
        asker = Asker(engine, store, budget or Budget(), bar, about, writer, meter)
        outcomes = _answer(task, given, asker, sampling, context)
    if fallback:
        outcomes = [_fallback(task, outcome, context) for outcome in outcomes]
    counts = asker.counts + Counter(o.status for o in outcomes)
    counts["truncated"] = sum(bool(o.left_out) for o in outcomes)
    done: dict[str, float] = {name: counts[name] for name in COUNTS}
    done |= {"rows": len(outcomes), "seconds": round(time.perf_counter() - began, 3)}
    done["money"] = round(asker.money, 9)
    rows_out = to_table(task, outcomes, engine.info.label)
    notes = tuple(getattr(engine, "notes", ()))
    return RunResult(rows_out, done, asker.stopped, tuple(asker.missing), notes)


def told_context(context: Context, info: EngineInfo) -> Context:
    """Return ``context`` without its reader of images where the engine reads no prompts."""
    if context is None or "images" not in context or "prompts" in info.capabilities:
        return context
    return {**context, "images": None}


def render(
    task: PromptTask, row_id: str, row: Row, sampling: Sampling, context: Context = None
) -> GenRequest:
    """Return the request of one row."""
    return GenRequest(
        row_id,
        tuple(task.render(row, context)),
        schema=task.row_schema(row),
        max_tokens=task.room(sampling.max_tokens),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed,
        stop=task.stop or sampling.stop,
        row=row,
        without_model=partial(_template, task, row, context),
    )


def _answer(
    task: PromptTask, given: Mapping[str, Row], asker: Asker, sampling: Sampling, context: Context
) -> list[Outcome]:
    """Return one outcome per row, in order."""
    outcomes: dict[str, Outcome] = {}
    asks = []
    for row_id, row in given.items():
        if reason := task.unaskable(row, context):
            status = "quarantined" if task.unusable(row, context) else "no_answer"
            outcomes[row_id] = Outcome(row_id, row, status=status, reason=reason)
        else:
            request = render(task, row_id, row, sampling, context)
            asks.append(keyed(row, request, asker.engine.info))
    results = asker.results(asks)
    grounded = asker.kind != "template"
    for ask in asks:
        outcomes[ask.row_id] = judge_result(task, ask, results[ask.key], grounded=grounded)
    if asker.reads_prompts:
        _repair(task, asks, results, outcomes, asker)
    if asker.kind != "recorded":  # nobody knows what those prompts told
        for ask in asks:
            left_out = "; ".join(task.left_out(ask.row, context))
            outcomes[ask.row_id] = dataclasses.replace(outcomes[ask.row_id], left_out=left_out)
    return [outcomes[row_id] for row_id in given]


def judge_result(
    task: PromptTask, ask: Ask, result: GenResult, *, grounded: bool = True
) -> Outcome:
    """Return the outcome of one result: ok, no_answer, or quarantined with the reason.

    The template speaks from the row itself, so rules against invention are not for it.
    """
    if result.error:
        return Outcome(ask.row_id, ask.row, status="no_answer", reason=result.error, key=ask.key)
    out = Outcome(ask.row_id, ask.row, raw=result.text, key=ask.key)
    if result.finish_reason == "length":
        return out.refused(f"the answer was cut at {ask.request.max_tokens} tokens")
    if result.finish_reason in FINAL:
        who = "the model" if result.finish_reason == "refusal" else "the provider's filter"
        return out.refused(f"{who} refused to answer")
    try:
        parsed = task.parse(result.text)
        if parsed.value is None:
            return out.refused(parsed.reason)
        reasons = task.ground(parsed.value, ask.row) if grounded else []
        value = parsed.value if reasons else task.resolved(parsed.value, ask.row)
    except Exception as error:  # one row's surprise must not cost the run's other answers
        return out.refused(f"the task's own check failed: {type(error).__name__}: {error}")
    out = dataclasses.replace(out, value=value)
    return out.refused("; ".join(reasons)) if reasons else out


def _repair(
    task: PromptTask,
    asks: Sequence[Ask],
    first: Mapping[str, GenResult],
    outcomes: dict[str, Outcome],
    asker: Asker,
) -> None:
    """Ask refused rows once more: with the reason, or with twice the room where one was cut."""
    again = []
    for ask in asks:
        request = repair_request(task, ask, first[ask.key], outcomes[ask.row_id])
        if request is not None:
            again.append(keyed(ask.row, request, asker.engine.info))
    second = asker.results(again)
    for ask in again:
        before, after = outcomes[ask.row_id], judge_result(task, ask, second[ask.key])
        if after.status == "ok":
            now = dataclasses.replace(after, status="repaired", reason=before.reason)
        else:
            reason = f"{before.reason}; asked again: {after.reason}"
            now = dataclasses.replace(before, reason=reason)
        outcomes[ask.row_id] = now


def repair_request(
    task: PromptTask, ask: Ask, result: GenResult, refused: Outcome
) -> GenRequest | None:
    """Return the request that asks once more after a refused answer; None where there is none."""
    request, reason = ask.request, refused.reason
    if refused.status != "quarantined" or result.finish_reason in FINAL:
        return None
    if request.messages[-1]["role"] == "assistant":
        return None  # the answer was begun for the model: there is nothing to reason with
    if result.finish_reason == "length":
        return dataclasses.replace(request, max_tokens=2 * request.max_tokens)
    more = (
        {"role": "assistant", "content": result.text},
        {"role": "user", "content": task.repair(reason)},
    )
    return dataclasses.replace(request, messages=(*request.messages, *more))


def _template(task: PromptTask, row: Row, context: Context) -> str:
    return task.write(task.template(row, context))


def _fallback(task: PromptTask, outcome: Outcome, context: Context) -> Outcome:
    if outcome.status in ("ok", "repaired") or task.unaskable(outcome.row, context):
        return outcome
    value = task.resolved(task.template(outcome.row, context), outcome.row)
    return dataclasses.replace(outcome, value=value, status="fallback")


def by_id(rows: Rows, task: PromptTask) -> dict[str, Row]:
    """Return row by id; ``ValueError`` for a row without an id and for an id that occurs twice."""
    given: dict[str, Row] = {}
    for number, row in enumerate(rows.to_pylist() if isinstance(rows, pa.Table) else rows):
        row_id = row.get(task.id_column)
        if row_id is None:
            raise ValueError(f"row {number}: no {task.id_column}; found {', '.join(map(str, row))}")
        if str(row_id) in given:
            raise ValueError(f"row {number}: {task.id_column} {row_id!r} a second time")
        given[str(row_id)] = row
    return given
