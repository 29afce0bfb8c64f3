"""From requests to results: what is stored, one call per different key, answers kept at once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..store.responses import Answer, ResponseStore, Writer, response_key
from .budget import Budget, Spent
from .keys import request_json
from .progress import Progress
from .protocol import Engine, EngineInfo, GenRequest, GenResult


@dataclass(frozen=True)
class Ask:
    """A row's request with its canonical JSON and the key under which the answer is stored."""

    row_id: str
    row: Mapping[str, Any]
    request: GenRequest
    content: str
    key: str


def keyed(row: Mapping[str, Any], request: GenRequest, info: EngineInfo) -> Ask:
    """Return ``request`` with its key for the engine of ``info``."""
    content = request_json(request, info)
    return Ask(request.row_id, row, request, content, response_key(info.identity, content))


@dataclass
class Asker:
    """Asks one engine on behalf of one run. ``about``: task and prompt revision of the answers.

    ``counts``: llm_calls, cache_hits, recorded, templated, deduped, tokens_in, tokens_out. Every
    ask is one of: a call, a hit, recorded, templated, deduped, or without a result.
    """

    engine: Engine
    store: ResponseStore | None
    budget: Budget
    bar: Progress
    about: Mapping[str, str]
    writer: Writer | None = None
    counts: Counter[str] = field(default_factory=Counter)
    stopped: str = ""

    def __post_init__(self) -> None:
        self.spent = Spent(self.budget)
        if self.store is None and self.kind != "template":
            raise ValueError(
                f"the {self.kind} engine needs a response store: its answers are paid for"
            )

    @property
    def kind(self) -> str:
        return self.engine.info.kind

    @property
    def reads_prompts(self) -> bool:
        """True for language models. What answers by row has nothing to look up or to repair."""
        return "prompts" in self.engine.info.capabilities

    def results(self, asks: Sequence[Ask]) -> dict[str, GenResult]:
        """Return a result for every key of ``asks``; what was not asked is an error with a why."""
        wanted: dict[str, Ask] = {}
        for ask in asks:
            wanted.setdefault(ask.key, ask)
        results: dict[str, GenResult] = {}
        if self.reads_prompts and self.store is not None:
            found = self.store.lookup(wanted)
            results = {key: from_store(answer) for key, answer in found.items()}
            self.counts["cache_hits"] += len(results)
        self.counts["deduped"] += len(asks) - len(wanted)
        missing = [ask for key, ask in wanted.items() if key not in results]
        results |= self._generate(missing)
        for ask in missing:
            reason = self.stopped or "the engine gave no result for this row"
            results.setdefault(ask.key, GenResult.failed(ask.row_id, reason))
        return results

    def _generate(self, asks: Sequence[Ask]) -> dict[str, GenResult]:
        """Ask the engine and store each answer as it arrives. A budget ends list or stream."""
        left = self.spent.calls_left if self.reads_prompts else None
        if left is not None and len(asks) > left:
            self.stopped = f"budget reached: {self.budget.calls} calls"
            asks = asks[:left]
        by_row = {ask.row_id: ask for ask in asks}
        results: dict[str, GenResult] = {}
        if not asks:
            return results
        self.bar.more(len(asks))
        kept = frozenset() if self.reads_prompts else self._kept(asks)
        for result in self.engine.generate([ask.request for ask in asks], halt=self._halt):
            ask = by_row[result.row_id]
            results[ask.key] = result
            self._count(result)
            self.bar.advance(result.tokens_in + result.tokens_out)
            if self.writer is not None and not result.error and ask.key not in kept:
                self._put(self.writer, ask, result)
        return results

    def _kept(self, asks: Sequence[Ask]) -> frozenset[str]:
        """Return the keys that an earlier run stored: recorded answers are read again each time."""
        if self.store is None or self.kind == "template":
            return frozenset()
        return frozenset(self.store.known(ask.key for ask in asks))

    def _halt(self) -> bool:
        if self.reads_prompts:
            self.stopped = self.stopped or self.spent.stopped
        return bool(self.stopped and self.spent.stopped)

    def _count(self, result: GenResult) -> None:
        if self.kind in ("template", "recorded"):
            name = "templated" if self.kind == "template" else "recorded"
            self.counts[name] += not result.error
            return
        if result.error and not result.tokens_in:
            return  # refused before the model ran: nothing was paid
        self.counts["llm_calls"] += 1
        self.counts["tokens_in"] += result.tokens_in
        self.counts["tokens_out"] += result.tokens_out
        self.spent.add(result.tokens_in + result.tokens_out)

    def _put(self, writer: Writer, ask: Ask, result: GenResult) -> None:
        info = self.engine.info
        writer.put(
            text=result.text,
            finish_reason=result.finish_reason,
            request=ask.content,
            identity=info.identity,
            tokens_in=result.tokens_in,
            tokens_out=result.tokens_out,
            engine=info.kind,
            model=info.label,
            libraries=json.dumps(dict(info.libraries), sort_keys=True),
            row_id=ask.row_id,
            **self.about,
        )


def from_store(answer: Answer) -> GenResult:
    """Return a stored answer as the result of a call that cost nothing now."""
    return GenResult(
        "", answer.text, answer.finish_reason, answer.tokens_in, answer.tokens_out,
        key=answer.key, cache_hit=True,
    )  # fmt: skip
