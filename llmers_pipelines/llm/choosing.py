"""Scores of given answers: looked up in the response store, asked for once, kept as they arrive."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..store.responses import ResponseStore, response_key
from .budget import Budget, Spent
from .keys import hashed
from .progress import Progress, Report
from .protocol import ChoiceRequest, ChoiceResult, Engine, EngineError, EngineInfo

SLICE = 64  # requests between two looks at the budget


@dataclass(frozen=True)
class Chosen:
    """``results`` by row id; a failure is a result with ``error``. ``stopped``: why a budget did.

    ``counts``: llm_calls, cache_hits, deduped, failed, tokens_in (of prompts and choices).
    """

    results: dict[str, ChoiceResult]
    counts: dict[str, int]
    stopped: str = ""


def choice_json(request: ChoiceRequest, info: EngineInfo = EngineInfo("", "")) -> str:
    """Return everything of ``request`` that may change its scores, as one canonical line."""
    content = {
        "messages": [hashed(m, info) for m in request.messages],
        "choices": list(request.choices),
        "asked": "log-probability of each choice",
        **({"first_tokens": request.first_tokens} if request.first_tokens else {}),
    }
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace").decode("utf-8")


def can_choose(info: EngineInfo) -> bool:
    return "logprobs" in info.capabilities


def missing_choices(
    requests: Sequence[ChoiceRequest], info: EngineInfo, store: ResponseStore
) -> tuple[list[ChoiceRequest], int]:
    """Return the requests that a run would ask, each once, and how many different ones are stored.

    Nothing is loaded or asked.
    """
    first: dict[str, ChoiceRequest] = {}
    for request in requests:
        first.setdefault(response_key(info.identity, choice_json(request, info)), request)
    known = store.known(first)
    return [r for key, r in first.items() if key not in known], len(known)


def choose_all(
    requests: Sequence[ChoiceRequest],
    engine: Engine,
    store: ResponseStore,
    *,
    task: str,
    revision: str,
    budget: Budget | None = None,
    progress: Report | bool | None = None,
) -> Chosen:
    """Return the log-probabilities of each request's choices.

    Requests with equal messages and choices are one call; what the store holds is not asked again.
    Raises EngineError where the engine has no log-probabilities. A budget ends the run between two
    slices; the rest has no result. Tokens count as far as an engine tells them.
    """
    info = engine.info
    if not can_choose(info):
        raise EngineError(
            f"the {info.kind} engine cannot rank choices by log-probability; choose llm.engine = "
            '"hf" with a model, or another teacher'
        )
    content = {r.row_id: choice_json(r, info) for r in requests}
    key_of = {row: response_key(info.identity, text) for row, text in content.items()}
    first: dict[str, ChoiceRequest] = {}
    for request in requests:
        first.setdefault(key_of[request.row_id], request)
    found: dict[str, ChoiceResult] = {}
    for key, answer in store.lookup(first).items():
        scores = json.loads(answer.text)
        found[key] = ChoiceResult("", tuple(scores["sums"]), tuple(scores["means"]))
    counts: Counter[str] = Counter(
        llm_calls=0, cache_hits=len(found), deduped=len(requests) - len(first), failed=0,
        tokens_in=0,
    )
    spent = Spent(budget or Budget())
    missing = [request for key, request in first.items() if key not in found]
    with Progress(task, progress) as bar, store.writer() as writer:
        bar.more(len(missing))
        while missing and not spent.stopped:
            left = spent.calls_left
            size = SLICE if left is None else min(SLICE, left)
            part, missing = missing[:size], missing[size:]
            for result in engine.choose(part):
                key = key_of[result.row_id]
                found[key] = result
                bar.advance(result.tokens_in)
                if result.error:
                    counts["failed"] += 1
                    continue
                spent.add(result.tokens_in)
                counts["llm_calls"] += 1
                counts["tokens_in"] += result.tokens_in
                writer.put(
                    text=json.dumps({"sums": result.sums, "means": result.means}),
                    finish_reason="stop", request=content[result.row_id],
                    identity=info.identity, engine=info.kind, model=info.label,
                    libraries=json.dumps(dict(info.libraries), sort_keys=True), task=task,
                    prompt_revision=revision, row_id=result.row_id, tokens_in=result.tokens_in,
                )  # fmt: skip
    results = {row: _named(found[key], row) for row, key in key_of.items() if key in found}
    return Chosen(results, dict(counts), spent.stopped if missing else "")


def _named(result: ChoiceResult, row: str) -> Any:
    return ChoiceResult(row, result.sums, result.means, result.error)
