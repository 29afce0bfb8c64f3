"""One request from admission to result: allowance, breaker, budget, send, settle, try again."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .chat_form import Completion, Form, chat_body, most_tokens, read_completion, sent_schema
from .clock import Stop
from .ledger import Hold
from .openai_verdict import Verdict, judge
from .pictures import PictureError
from .protocol import GenRequest, GenResult
from .rate import backoff, spread

if TYPE_CHECKING:
    from .openai import OpenAIEngine


@dataclass
class Tally:
    """What one request has used so far, over all its attempts."""

    attempts: int = 0
    throttled: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cached: int = 0
    money: float = 0.0

    def counts(self) -> dict[str, Any]:
        return vars(self)


@dataclass(frozen=True)
class Outcome:
    """An answer (``verdict.kind`` "answer"), or ``error``: why there is none."""

    tally: Tally
    verdict: Verdict | None = None
    form: Form = field(default_factory=Form)
    error: str = ""


class Calls:
    """The calls of one run of the engine; used by all its threads."""

    def __init__(self, engine: OpenAIEngine, stop: Stop) -> None:
        self.engine = engine
        self.stop = stop
        self.http = engine.http  # one for all threads; a wrong address or key ends it here
        self._room = threading.Condition()
        self._held = 0
        self._answered_at = engine.clock.now()  # when the endpoint last did not ask to wait

    def generate(self, request: GenRequest) -> GenResult | None:
        """Return the result of one request; None where it was not begun."""
        try:
            chat_body("", request, self.engine.form)
        except ValueError as error:
            return GenResult.failed(request.row_id, str(error), attempts=0)
        try:
            done = self.ask("/chat/completions", request, lambda form: chat_body(
                self.engine.settings.model, request, form))  # fmt: skip
        except PictureError as error:  # its file changed meanwhile
            return GenResult.failed(request.row_id, str(error))
        if done is None:
            return None
        if done.verdict is None or done.verdict.completion is None:
            return GenResult.failed(request.row_id, done.error, **done.tally.counts())
        found, scrub = done.verdict.completion, self.http.scrub
        served = scrub(found.served, always=True)
        found = replace(found, text=scrub(found.text), served=served)
        schema = sent_schema(request, done.form)
        self.engine.seen.answered(self.engine.settings.model, schema, found)
        return GenResult(
            request.row_id, found.text, found.finish_reason, served=found.served,
            **done.tally.counts(),
        )  # fmt: skip

    def ask(
        self,
        path: str,
        request: GenRequest,
        body_of: Callable[[Form], dict[str, Any]],
        *,
        most_out: int | None = None,
        read: Callable[[Any], Completion] = read_completion,
    ) -> Outcome | None:
        """Send ``body_of(form)`` until there is an outcome; None where nothing was sent.

        ``most_out``: the most tokens of an answer (default: the request's bound).
        """
        engine, tally = self.engine, Tally()
        most_out = request.max_tokens if most_out is None else most_out
        form = engine.form
        refused = ""
        throttled_since: float | None = None
        sent = False
        while True:
            body = body_of(form)
            most_in = most_tokens(body, engine.settings.image_tokens)
            guess = most_in // 4 + most_out
            hold = self._admit(guess, most_in, most_out)
            if hold is None:
                return Outcome(tally, error=self.stop.reason) if sent else None
            sent = True
            verdict = self._send(path, body, request, form, hold, (most_in, most_out), guess,
                                 tally, read)  # fmt: skip
            if verdict.kind == "answer":
                if form != engine.form:
                    engine.form = engine.seen.settled(
                        engine.form, form, request.schema is not None, refused
                    )
                elif request.schema is not None:
                    engine.seen.settled(form, form, True, "")
                return Outcome(tally, verdict, form)
            if verdict.kind == "form" and verdict.form is not None:
                form, refused = verdict.form, verdict.reason
                continue
            if verdict.kind == "throttled":
                if throttled_since is None:
                    throttled_since = engine.clock.now()
                if error := self._cool_down(verdict, tally, throttled_since):
                    return Outcome(tally, error=error)
                continue
            tally.attempts += 1
            if verdict.kind == "stop":
                self.stop.now(verdict.reason)
                return Outcome(tally, error=verdict.reason)
            if verdict.kind == "row":
                if engine.seen.refused():
                    self.stop.now(f"the endpoint refuses every request: {verdict.reason}")
                return Outcome(tally, error=verdict.reason)
            if error := self._again(verdict, tally):
                return Outcome(tally, error=error)

    def _admit(self, guess: int, most_in: int, most_out: int) -> Hold | None:
        """Wait for the allowance, the breaker and the budget; None once the run has stopped."""
        if not self.engine.rate.acquire(guess, self.stop):
            return None
        if not self.engine.breaker.enter(self.stop):
            return None
        with self._room:
            while not self.stop.set:
                found = self.engine.meter.hold(most_in, most_out)
                if isinstance(found, Hold):
                    self._held += 1
                    return found
                if not (found.waits and self._held):
                    self.stop.now(self.engine.meter.refused(found))
                    self._room.notify_all()
                    return None
                self._room.wait(1.0)  # a call under way may use less than is held for it
        return None

    def _send(
        self, path: str, body: dict[str, Any], request: GenRequest, form: Form, hold: Hold,
        most: tuple[int, int], guess: int, tally: Tally, read: Callable[[Any], Completion],
    ) -> Verdict:  # fmt: skip
        """Send once and book what it cost, whatever came back."""
        engine = self.engine
        verdict = None
        try:
            reply = self.http.post(path, body)
            verdict = judge(reply, request, form, self.http, engine.clock.wall(), read)
            if verdict.completion is not None:
                verdict = replace(verdict, completion=verdict.completion.within(most))
            return verdict
        finally:
            self._settle(hold, verdict, most, guess, tally)

    def _settle(
        self, hold: Hold, verdict: Verdict | None, most: tuple[int, int], guess: int, tally: Tally
    ) -> None:
        meter, found = self.engine.meter, verdict.completion if verdict else None
        if found is not None and found.known:
            used, cached = (found.tokens_in, found.tokens_out), found.cached
        elif verdict is None or verdict.billed:
            used, cached = most, 0  # nobody says what it cost: it counts with its bound
        else:
            used, cached = (0, 0), 0
        money = meter.money(*used, cached)
        if verdict is not None and not verdict.billed and verdict.kind != "again":
            meter.release(hold)
        else:
            meter.settle(hold, *used, money)
        with self._room:
            self._held -= 1
            self._room.notify_all()
        tally.tokens_in += used[0]
        tally.tokens_out += used[1]
        tally.cached += cached
        tally.money += money
        if verdict is None:
            return
        if verdict.kind != "throttled":
            self.engine.rate.correct(guess, sum(used))
            self._answered_at = self.engine.clock.now()
        if verdict.kind == "answer":
            tally.attempts += 1
        if verdict.healthy:
            self.engine.breaker.success()
        else:
            self.engine.breaker.failure(verdict.reason, self.stop)

    def _cool_down(self, verdict: Verdict, tally: Tally, since: float) -> str:
        """Hold all workers back for as long as is asked; return why this row ends, or ""."""
        engine = self.engine
        tally.throttled += 1
        # Without a time, or with none to wait, an ever longer pause keeps from hammering.
        wait = verdict.wait or backoff(tally.throttled)
        most = engine.settings.throttle_seconds
        if engine.clock.now() + wait - since <= most:
            engine.rate.pause(wait)
            return ""
        reason = f"the endpoint asks to wait for more than {most:g} s ({verdict.reason})"
        if self._answered_at <= since:
            self.stop.now(reason)
        return reason

    def _again(self, verdict: Verdict, tally: Tally) -> str:
        """Wait before the next attempt; return why there is none, or ""."""
        engine = self.engine
        most = engine.settings.attempts
        if tally.attempts >= most:
            return f"{most} attempts failed; the last: {verdict.reason}"
        asked = verdict.wait or 0.0
        if asked > engine.settings.throttle_seconds:
            return f"the endpoint asks to wait {asked:g} s: {verdict.reason}"
        # All workers may have been told the same moment: each comes a little later, by chance.
        late = random.uniform(0, spread(asked))
        engine.clock.wait(max(asked + late, backoff(tally.attempts)), self.stop)
        return ""
