"""One row's question as it is sent, and what became of its answer, told step by step.

Nothing is asked unless ``ask`` says so; then the runner asks, and what it paid for is stored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..prompts.task import Context, PromptTask, Row
from ..store.responses import ResponseStore
from .asking import Ask, keyed
from .budget import Budget
from .neutral import COMMON, found_marks
from .pictures import plain_message, texts_of
from .protocol import Engine, GenResult, Message, Sampling
from .runner import judge_result, render, repair_request, run_task, told_context

CHARACTERS_PER_TOKEN = 4
Count = Callable[[Sequence[Message]], int]


def preview_row(
    task: PromptTask,
    row: Row,
    engine: Engine,
    store: ResponseStore,
    *,
    sampling: Sampling = Sampling(),
    context: Context = None,
    ask: bool = False,
    budget: Budget | None = None,
    count: Count | None = None,
) -> dict[str, Any]:
    """Return the request of ``row`` as sent, its size and schema, and its answer where one is.

    ``count`` gives the tokens of messages by the engine's own tokenizer; without it they are
    estimated. ``answers`` holds the first answer and, where that was refused and asked again, the
    second: raw text, parsed value, ``refused`` (why, "" = accepted), where it came from.
    """
    row_id = str(row[task.id_column])
    context = told_context(context, engine.info)
    out: dict[str, Any] = {
        "task": task.produces, "prompt_revision": task.prompt_revision, "id": row_id,
        "engine": engine.info.kind, "model": engine.info.label,
    }  # fmt: skip
    if reason := task.unaskable(row, context):
        return out | {"unaskable": reason, "messages": [], "answers": []}
    given = render(task, row_id, row, sampling, context)
    first = keyed(row, given, engine.info)
    out |= {
        "messages": [plain_message(m) for m in first.sent.messages],
        "schema": given.schema,
        "max_tokens": given.max_tokens,
        "tokens": _tokens(first.sent.messages, count),
        "truncated": task.left_out(row, context),
        "neutralized": {
            "in the row's cells": _cells(row),
            "in the rendered prompt": found_marks(_text(given.messages), engine.info.marks),
        },
        "key": first.key,
        "unaskable": "",
    }
    if ask and "prompts" in engine.info.capabilities:
        run_task(task, [row], engine, store, sampling=sampling, budget=budget, context=context,
                 progress=False, flush_rows=1)  # fmt: skip
    return out | {"answers": _answers(task, first, engine, store)}


def _answers(
    task: PromptTask, first: Ask, engine: Engine, store: ResponseStore
) -> list[dict[str, Any]]:
    """Return the first answer and its repair, as far as they are there."""
    result, source = _result(first, engine, store)
    if result is None:
        return []
    answers = [_told(task, first, result, source, engine)]
    outcome = judge_result(task, first, result, grounded=engine.info.kind != "template")
    repair = repair_request(task, first, result, outcome)
    if repair is not None and "prompts" in engine.info.capabilities:
        again = keyed(first.row, repair, engine.info)
        answers[0]["repair"] = [dict(m) for m in again.sent.messages[len(first.sent.messages) :]]
        answers[0]["repair"] = answers[0]["repair"] or (
            f"the same question with room for {again.request.max_tokens} tokens"
        )
        second, source = _result(again, engine, store)
        if second is not None:
            answers.append(_told(task, again, second, source, engine))
    return answers


def _result(
    ask: Ask, engine: Engine, store: ResponseStore
) -> tuple[GenResult | None, dict[str, Any]]:
    """Return an answer without a call, and where it was found; None where there is none."""
    kind = engine.info.kind
    if kind == "template":
        return next(iter(engine.generate([ask.sent]))), {"from": "template, no language model"}
    if rows := store.records([ask.key]):
        row = rows[0]
        known = ("engine", "model", "prompt_revision", "created", "tokens_in", "tokens_out")
        found = GenResult(ask.row_id, row["text"], row["finish_reason"], cache_hit=True)
        return found, {"from": "store", **{k: row[k] for k in known}}
    recording = getattr(engine, "recording", None)
    if recording is None or (entry := recording.entries.get(ask.row_id)) is None or not entry.text:
        return None, {}
    # Read past the engine: it would note this version of the row as the one of the import.
    return GenResult(ask.row_id, entry.text, entry.finish_reason or "stop"), {
        "from": f"recorded answers ({recording.name}), not imported yet"
    }


def _told(
    task: PromptTask, ask: Ask, result: GenResult, source: Mapping[str, Any], engine: Engine
) -> dict[str, Any]:
    """Return one answer as people read it: raw, parsed, accepted or why not."""
    outcome = judge_result(task, ask, result, grounded=engine.info.kind != "template")
    parsed = task.parse(result.text)
    return {
        **source, "raw": result.text, "finish_reason": result.finish_reason,
        "valid": parsed.value is not None, "value": parsed.value,
        "grounded": outcome.value is not None and outcome.status == "ok",
        "refused": "" if outcome.status == "ok" else outcome.reason,
        "text": task.text(parsed.value) if outcome.status == "ok" and parsed.value else None,
    }  # fmt: skip


def _tokens(messages: Sequence[Message], count: Count | None) -> dict[str, Any]:
    if count is not None:
        return {"count": count(messages), "how": "the model's own tokenizer and chat template"}
    estimate = -(-len(_text(messages)) // CHARACTERS_PER_TOKEN)
    return {"count": estimate, "how": f"estimate: {CHARACTERS_PER_TOKEN} characters a token; "
            "the engine has no tokenizer here"}  # fmt: skip


def _text(messages: Sequence[Message]) -> str:
    return "\n".join(texts_of(message) for message in messages)


def _cells(row: Row) -> list[dict[str, Any]]:
    """Return cells that spell control tokens; prompts tell them with round brackets instead."""
    found = []
    cells = [(name, value) for name, value in row.items() if name != "history"]
    history: Sequence[Mapping[str, Any]] = row.get("history") or []
    for number, entry in enumerate(history, start=1):
        cells += [(f"history {number}: {name}", value) for name, value in entry.items()]
    for name, value in cells:
        marks = found_marks(value, _FENCES) if isinstance(value, str) else []
        found += [{"column": name, "text": mark} for mark in marks]
    return found


_FENCES = dataclasses.replace(
    COMMON, texts=(*COMMON.texts, "<item>", "</item>", "<history>", "</history>", "```")
)
