"""Choices and vectors over an endpoint: what its interface offers beside answers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .chat_form import Completion, Form, chat_body
from .clock import Stop
from .openai_calls import Calls
from .protocol import ChoiceRequest, ChoiceResult, EngineError, EngineStopped, GenRequest
from .token_use import usage_of
from .workers import stream

if TYPE_CHECKING:
    from .openai import OpenAIEngine

MOST = 20  # likeliest tokens that the interface shows
TEXTS = 256  # of one call for vectors


def choose(engine: OpenAIEngine, requests: Sequence[ChoiceRequest]) -> Iterator[ChoiceResult]:
    """Yield one result per request; see ``OpenAIEngine.choose``."""
    _need_endpoint(engine)
    stop = Stop()
    calls = Calls(engine, stop)

    def one(request: ChoiceRequest) -> ChoiceResult | None:
        asked = GenRequest(request.row_id, request.messages, max_tokens=1)

        def body(form: Form) -> dict[str, Any]:
            return chat_body(engine.settings.model, asked, form) | {
                "logprobs": True, "top_logprobs": MOST,
            }  # fmt: skip

        try:
            done = calls.ask("/chat/completions", asked, body)
        except ValueError as error:
            return ChoiceResult(request.row_id, error=str(error))
        if done is None:
            return None
        if done.verdict is None:
            return ChoiceResult(request.row_id, error=done.error)
        likeliest = first_tokens(done.verdict.document)
        if likeliest is None:
            stop.now(
                f"{engine.http.host} tells no log-probabilities (logprobs), so choices "
                'cannot be ranked; use one that does, or llm.engine = "hf"'
            )
            return None
        return scored(request, likeliest)

    yield from stream(one, requests, workers=engine.settings.concurrency, stop=stop)
    if stop.reason != "closed":
        raise EngineStopped(stop.reason)


def first_tokens(document: Any) -> dict[str, float] | None:
    """Return log-probability by token, blanks around it removed; None where none are told."""
    try:
        listed = document["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        pairs = [(str(entry["token"]).strip(), float(entry["logprob"])) for entry in listed]
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    if not pairs:
        return None
    out: dict[str, float] = {}
    for token, value in pairs:
        known = out.get(token)
        if known is None:
            out[token] = value
        else:  # "A" and " A" are the same choice
            top = max(known, value)
            out[token] = top + math.log(math.exp(known - top) + math.exp(value - top))
    return out


def scored(request: ChoiceRequest, likeliest: Mapping[str, float]) -> ChoiceResult:
    """Return the choices' log-probabilities; an error where one of them is not known."""
    unknown = [c for c in request.choices if c.strip() not in likeliest]
    if unknown or not request.choices:
        what = f"{unknown[0]!r} is" if unknown else "there are no choices"
        return ChoiceResult(request.row_id, error=(
            f"{what} not among the {len(likeliest)} likeliest first tokens; ask for letters "
            "or numbers, one token each" if unknown else what
        ))  # fmt: skip
    sums = tuple(likeliest[c.strip()] for c in request.choices)
    return ChoiceResult(request.row_id, sums, sums)


def embed(engine: OpenAIEngine, texts: Sequence[str]) -> np.ndarray:
    """Return float32[len(texts), E]; ``EngineError`` where a call fails for good."""
    _need_endpoint(engine)
    calls = Calls(engine, Stop())
    parts = []
    for start in range(0, len(texts), TEXTS):
        some = [text or " " for text in texts[start : start + TEXTS]]  # "" is refused by many
        asked = GenRequest(str(start), ({"role": "user", "content": "\n".join(some)},))

        def body(form: Form, some: list[str] = some) -> dict[str, Any]:
            return {"model": engine.settings.model, "input": some, "encoding_format": "float"}

        done = calls.ask("/embeddings", asked, body, most_out=0, read=_usage_only)
        if done is None or done.verdict is None:
            raise EngineError(
                f"texts {start} to {start + len(some) - 1} got no vectors: "
                f"{done.error if done else calls.stop.reason}"
            )
        parts.append(_vectors(done.verdict.document, len(some)))
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def _usage_only(document: Any) -> Completion:
    if not isinstance(document, Mapping) or not isinstance(document.get("data"), list):
        raise ValueError("the body holds no data")
    counted = usage_of(document)
    return Completion("", "stop", *(counted or (0, 0, 0)), known=counted is not None)


def _vectors(document: Any, wanted: int) -> np.ndarray:
    rows = sorted(document["data"], key=lambda row: row["index"])
    if [row["index"] for row in rows] != list(range(wanted)):
        raise EngineError(f"asked for {wanted} vectors, got {len(rows)}")
    return np.array([row["embedding"] for row in rows], np.float32)


def _need_endpoint(engine: OpenAIEngine) -> None:
    if not engine.settings.endpoint:
        raise EngineError("llm.endpoint is not set: the base address, such as http://host:8000/v1")
