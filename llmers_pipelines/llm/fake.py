"""A stand-in for a language model: scripted answers and every fault that a real one has."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .protocol import ChoiceRequest, ChoiceResult, EngineInfo, GenRequest, GenResult, Halt

if TYPE_CHECKING:
    import numpy as np

Reply = str | Sequence[str] | Callable[[GenRequest], str]


@dataclass
class FakeEngine:
    """Answers from ``replies`` by row id: a text, one text per attempt, or a function.

    A row without a script gets its task's template, or the smallest answer its schema allows.
    ``cut`` rows end after half of their answer on the first attempt (finish_reason "length");
    ``always_cut`` rows on every attempt; ``too_long`` rows fail as an over-long prompt would;
    after ``kill_after`` answers the process kills itself, as a crash or a lost machine does.
    ``asked`` lists all requests that arrived.
    """

    replies: Mapping[str, Reply] = field(default_factory=dict)
    cut: frozenset[str] = frozenset()
    always_cut: frozenset[str] = frozenset()
    too_long: frozenset[str] = frozenset()
    kill_after: int = 0
    latency: float = 0.0  # seconds per answer
    batch: int = 1  # answers between two looks at ``halt``
    model: str = "fake"
    asked: list[GenRequest] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=dict)
    answered: int = 0

    @property
    def info(self) -> EngineInfo:
        abilities = frozenset({"prompts", "schema", "logprobs"})
        return EngineInfo(kind="fake", model=self.model, capabilities=abilities)

    def generate(
        self, requests: Sequence[GenRequest], *, halt: Halt | None = None
    ) -> Iterator[GenResult]:
        for number, request in enumerate(requests):
            if halt is not None and number % self.batch == 0 and halt():
                return
            if self.latency:
                time.sleep(self.latency)
            result = self._answer(request)
            if self.kill_after and self.answered >= self.kill_after:
                os.kill(os.getpid(), signal.SIGKILL)
            self.answered += 1
            yield result

    def _answer(self, request: GenRequest) -> GenResult:
        self.asked.append(request)
        attempt = self.attempts[request.row_id] = self.attempts.get(request.row_id, 0) + 1
        if request.row_id in self.too_long:
            return GenResult.failed(request.row_id, "the prompt exceeds the context of the model")
        text = self._text(request, attempt)
        tokens_in = sum(len(str(m["content"]).split()) for m in request.messages)
        if request.row_id in self.always_cut or (request.row_id in self.cut and attempt == 1):
            text = text[: len(text) // 2]
            return GenResult(request.row_id, text, "length", tokens_in, request.max_tokens)
        return GenResult(request.row_id, text, "stop", tokens_in, len(text.split()))

    def _text(self, request: GenRequest, attempt: int) -> str:
        reply = self.replies.get(request.row_id)
        if callable(reply):
            return reply(request)
        if isinstance(reply, str):
            return reply
        if reply is not None:
            return reply[min(attempt, len(reply)) - 1]
        if request.without_model is not None:
            return request.without_model()
        return json.dumps(smallest(request.schema)) if request.schema else "An answer."

    def choose(self, requests: Sequence[ChoiceRequest]) -> Iterator[ChoiceResult]:
        """Prefer the choices in the order in which they are given."""
        for request in requests:
            sums = tuple(-float(n + 1) for n in range(len(request.choices)))
            texts = [*(str(m["content"]) for m in request.messages), *request.choices]
            read = sum(len(text.split()) for text in texts)
            yield ChoiceResult(request.row_id, sums, sums, tokens_in=read)

    def embed(self, texts: Sequence[str], *, pooling: str = "mean", layer: int = -1) -> np.ndarray:
        """Return float32[n, 26] letter counts: equal texts have equal vectors."""
        import numpy as np

        letters = "abcdefghijklmnopqrstuvwxyz"
        counts = [[text.lower().count(c) for c in letters] for text in texts]
        return np.array(counts, np.float32).reshape(len(texts), len(letters))

    def close(self) -> None:
        """Nothing is held."""


def smallest(schema: Mapping[str, Any]) -> Any:
    """Return the smallest value that a schema of the project's dialect allows."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return smallest(schema["anyOf"][0])
    match schema.get("type"):
        case "object":
            return {name: smallest(inner) for name, inner in schema["properties"].items()}
        case "array":
            return [smallest(schema["items"])] * schema.get("minItems", 0)
        case "string":
            return "x" * schema.get("minLength", 1)
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return False
    return None
