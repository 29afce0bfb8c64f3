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
from .meter import Meter
from .neutral import neutral_request
from .progress import Progress
from .protocol import Engine, EngineInfo, EngineStopped, GenRequest, GenResult


@dataclass(frozen=True)
class Ask:
    """A row's request with its canonical JSON and the key under which the answer is stored.

    ``sent`` is what the engine reads: ``request`` with the tokenizer's special tokens neutralized.
    """

    row_id: str
    row: Mapping[str, Any]
    request: GenRequest
    content: str
    key: str
    sent: GenRequest


def keyed(row: Mapping[str, Any], request: GenRequest, info: EngineInfo) -> Ask:
    """Return ``request`` with its key for the engine of ``info``."""
    sent = neutral_request(request, info.marks)
    content = request_json(sent, info)
    return Ask(request.row_id, row, request, content, response_key(info.identity, content), sent)


@dataclass
class Asker:
    """Asks one engine on behalf of one run. ``about``: task and prompt revision of the answers.

    ``counts``: llm_calls, cache_hits, recorded, templated, deduped, tokens_in, tokens_out, ...
    Every ask is one of: a call, a hit, recorded, templated, deduped, or without a result.
    ``stopped``: why nothing more is asked; ``missing``: rows that it left without an answer.
    """

    engine: Engine
    store: ResponseStore | None
    budget: Budget
    bar: Progress
    about: Mapping[str, str]
    writer: Writer | None = None
    meter: Meter | None = None
    counts: Counter[str] = field(default_factory=Counter)
    money: float = 0.0
    stopped: str = ""
    missing: dict[str, None] = field(default_factory=dict)  # row ids, in order

    def __post_init__(self) -> None:
        self.spent = self.meter or Spent(self.budget)
        if self.metered and self.budget != Budget():
            raise ValueError(
                f"the {self.kind} engine keeps to the budget of its own meter; give it there"
            )
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

    @property
    def metered(self) -> bool:
        """True for engines that book each attempt themselves, before it is made."""
        return "metered" in self.engine.info.capabilities

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
        if self.stopped:
            left = (a.row_id for a in asks if results[a.key].error == self.stopped)
            self.missing |= dict.fromkeys(left)
        return results

    def _generate(self, asks: Sequence[Ask]) -> dict[str, GenResult]:
        """Ask the engine and store each answer as it arrives. A budget ends list or stream."""
        asks = self._affordable(asks)
        by_row = {ask.row_id: ask for ask in asks}
        results: dict[str, GenResult] = {}
        if not asks:
            return results
        self.bar.more(len(asks))
        kept = frozenset() if self.reads_prompts else self._kept(asks)
        try:
            for result in self.engine.generate([ask.sent for ask in asks], halt=self._halt):
                ask = by_row[result.row_id]
                results[ask.key] = result
                self._count(result)
                self.bar.advance(result.tokens_in + result.tokens_out, self.money)
                if self.writer is not None and not result.error and ask.key not in kept:
                    self._put(self.writer, ask, result)
        except EngineStopped as reason:
            self.stopped = self.stopped or str(reason)
        return results

    def _affordable(self, asks: Sequence[Ask]) -> Sequence[Ask]:
        """Return the asks for which calls are left; a metered engine sees to that itself."""
        if self.metered:
            return () if self.stopped else asks
        left = self.spent.calls_left if self.reads_prompts else None
        if left is not None and len(asks) > left:
            self.stopped = self.spent.no_calls
            asks = asks[:left]
        return asks

    def _kept(self, asks: Sequence[Ask]) -> frozenset[str]:
        """Return the keys that an earlier run stored: recorded answers are read again each time."""
        if self.store is None or self.kind == "template":
            return frozenset()
        return frozenset(self.store.known(ask.key for ask in asks))

    def _halt(self) -> bool:
        if self.metered:
            return bool(self.stopped)
        if self.reads_prompts:
            self.stopped = self.stopped or self.spent.stopped
        return bool(self.stopped and self.spent.stopped)

    def _count(self, result: GenResult) -> None:
        if self.kind in ("template", "recorded"):
            name = "templated" if self.kind == "template" else "recorded"
            self.counts[name] += not result.error
            return
        paid = not result.error or result.tokens_in > 0
        if paid or self.metered:
            self.counts["attempts"] += result.attempts
            self.counts["throttled"] += result.throttled
        if not paid:
            return  # refused before the model ran
        self.counts["llm_calls"] += 1
        self.counts["tokens_in"] += result.tokens_in
        self.counts["tokens_out"] += result.tokens_out
        self.counts["tokens_cached"] += result.cached
        self.money += result.money
        if not self.metered:
            self.spent.add(result.tokens_in, result.tokens_out)
            if self.meter is not None:
                self.money += self.meter.money(result.tokens_in, result.tokens_out)

    def _put(self, writer: Writer, ask: Ask, result: GenResult) -> None:
        info = self.engine.info
        libraries = dict(info.libraries) | ({"served": result.served} if result.served else {})
        writer.put(
            text=result.text,
            finish_reason=result.finish_reason,
            request=ask.content,
            identity=info.identity,
            tokens_in=result.tokens_in,
            tokens_out=result.tokens_out,
            engine=info.kind,
            model=info.label,
            libraries=json.dumps(libraries, sort_keys=True),
            row_id=ask.row_id,
            **self.about,
        )


def from_store(answer: Answer) -> GenResult:
    """Return a stored answer as the result of a call that cost nothing now."""
    return GenResult(
        "", answer.text, answer.finish_reason, answer.tokens_in, answer.tokens_out,
        key=answer.key, cache_hit=True,
    )  # fmt: skip
