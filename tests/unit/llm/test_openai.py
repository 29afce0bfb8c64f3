"""The endpoint engine against a real server on this machine: requests, answers, budgets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from endpoint_kit import KEY, MODEL, SCHEMA, collect, engine_at, one, requests_of, run
from loopback import BROKEN, Loopback, Say, schema_of

from llmers_pipelines.llm.budget import Budget
from llmers_pipelines.llm.chat_form import most_tokens
from llmers_pipelines.llm.ledger import Ledger, Use
from llmers_pipelines.llm.openai import OpenAISettings, describe
from llmers_pipelines.llm.protocol import ChoiceRequest, EngineError, GenRequest, GenResult
from llmers_pipelines.prices import Price


def test_a_request_holds_what_was_asked_and_the_answer_comes_back() -> None:
    with Loopback(Say("An answer of five words")) as server:
        engine = engine_at(server, price=Price(input=1.0, output=10.0))
        (result,) = engine.generate(requests_of(1, top_p=0.5, stop=("END",)))
        ((path, headers, body),) = server.asked
    assert path == "/v1/chat/completions" and headers["authorization"] == f"Bearer {KEY}"
    assert body == {
        "model": MODEL, "messages": [{"role": "user", "content": "Question 0 of all"}],
        "max_tokens": 10, "temperature": 0.0, "top_p": 0.5, "seed": 0, "stop": ["END"],
    }  # fmt: skip
    assert (result.text, result.finish_reason) == ("An answer of five words", "stop")
    assert (result.tokens_in, result.tokens_out, result.attempts) == (4, 5, 1)
    assert result.money == pytest.approx((4 * 1.0 + 5 * 10.0) / 1e6)
    assert engine.meter.ledger.total(run="run") == Use(1, 9, 54_000)


def test_the_schema_is_sent_and_its_neglect_is_told_once() -> None:
    with Loopback(Say('{"mood": "calm"}')) as server:
        engine = engine_at(server)
        run(engine, requests_of(1, SCHEMA))
        sent = server.bodies[0]["response_format"]
        assert sent["json_schema"]["strict"] is True and schema_of(server.bodies[0]) == SCHEMA
        assert engine.notes == ()
        server.script = [Say('{"mood": "x"}'), Say('Sure! {"mood": "calm"}')]
        found = run(engine, requests_of(2, SCHEMA))
    assert found["r0"].text == '{"mood": "x"}' and not found["r0"].error, "the row goes on"
    (note,) = engine.notes
    assert note.startswith("2 of 3 answers break the JSON schema") and "response_format" in note


@pytest.mark.parametrize(("refuses", "asked", "form"), [
    (lambda s: "maxLength" in str(s), ["full", "lean", "lean"], "lean"),
    (lambda s: s is not None, ["full", "lean", "none", "none"], "none"),
])  # fmt: skip
def test_an_endpoint_that_refuses_the_schema_is_asked_with_less(
    refuses: Any, asked: list[str], form: str
) -> None:
    def rule(body: dict[str, Any], headers: Any) -> Say | None:
        error = {"message": f"Invalid schema: {KEY} is not permitted"}
        return Say(status=400, error=error) if refuses(schema_of(body)) else Say('{"mood": "ok!"}')

    def level(body: dict[str, Any]) -> str:
        schema = schema_of(body)
        return "none" if schema is None else "full" if "maxLength" in str(schema) else "lean"

    with Loopback(rule=rule) as server:
        engine = engine_at(server)
        found = run(engine, requests_of(2, SCHEMA))
        assert [level(b) for b in server.bodies] == asked, "refused once, not once per row"
    assert all(r.text == '{"mood": "ok!"}' and r.attempts == 1 for r in found.values())
    assert engine.form.schema == form
    (note,) = engine.notes
    assert "refuses the JSON schema" in note and KEY not in note
    assert engine.meter.ledger.total(run="run").calls == 2, "refusals cost nothing"


def test_one_rows_bad_schema_does_not_change_the_others() -> None:
    odd = SCHEMA | {"properties": {"mood": {"enum": ["odd"]}}}

    def rule(body: dict[str, Any], headers: Any) -> Say | None:
        return Say(status=400, error="too many values") if "odd" in str(body) else None

    first, second, third = requests_of(3, SCHEMA)
    bad = GenRequest("r1", second.messages, schema=odd, max_tokens=10)
    with Loopback(rule=rule) as server:
        engine = engine_at(server)
        found = run(engine, [first, bad, third])
        assert schema_of(server.bodies[-1]) == SCHEMA
    assert engine.form.schema == "full" and not found["r1"].error


def test_fields_that_a_model_does_not_take() -> None:
    def rule(body: dict[str, Any], headers: Any) -> Say | None:
        if "max_tokens" in body:
            return Say(status=400, error={"message": "use max_completion_tokens instead"})
        if "seed" in body:
            return Say(status=400, error={"message": "unknown field", "param": "seed"})
        return None

    with Loopback(rule=rule) as server:
        engine = engine_at(server)
        assert not any(r.error for r in run(engine, requests_of(2)).values())
        assert len(server.asked) == 4 and server.bodies[-1]["max_completion_tokens"] == 10
    assert "llm.token_limit" in " ".join(engine.notes) and "no seed" in " ".join(engine.notes)
    error = {"message": "does not support 0.0", "param": "temperature"}
    with Loopback(Say(status=400, error=error)) as server:
        _, why = collect(engine_at(server).generate(requests_of(2)))
    assert "temperature = 0" in why and "llm.temperature" in why, "the key says 0: never dropped"


def test_cached_prompt_tokens_cost_their_own_price() -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 10,
             "prompt_tokens_details": {"cached_tokens": 80}}  # fmt: skip
    with Loopback(Say("x", usage=usage)) as server:
        result, _ = one(server, price=Price(input=2.0, output=8.0, cached_input=0.5))
    assert result.cached == 80
    assert result.money == pytest.approx((20 * 2.0 + 80 * 0.5 + 10 * 8.0) / 1e6)


@pytest.mark.parametrize(("say", "reason", "text"), [
    (Say("half an ans", finish="length"), "length", "half an ans"),
    (Say("", finish="content_filter"), "content_filter", ""),
    (Say("", refusal="I cannot help with that."), "refusal", "I cannot help with that."),
    (Say("x", finish="tool_calls"), "stop", "x"),
    (Say(raw=b'{"choices": [{"message": {"content": [{"text": "a"}, {"text": "b"}]}}]}'),
     "stop", "ab"),
])  # fmt: skip
def test_how_an_answer_ended(say: Say, reason: str, text: str) -> None:
    with Loopback(say) as server:
        result, _ = one(server)
    assert (result.finish_reason, result.text, result.error) == (reason, text, "")


def test_many_at_once_and_halt() -> None:
    with Loopback(latency=0.05) as server:
        engine = engine_at(server, concurrency=6)
        seen: list[GenResult] = []
        for result in engine.generate(requests_of(60), halt=lambda: len(seen) >= 12):
            seen.append(result)
        assert 3 <= server.most_at_once <= 6
        assert 12 <= len(seen) == len(server.asked) <= 12 + 6
    assert len({r.row_id for r in seen}) == len(seen)


@pytest.mark.parametrize(("budget", "part"), [
    (Budget(calls=7), "7 of 7 calls"), (Budget(calls_per_day=7), "7 of 7 calls of this day"),
    (Budget(tokens=400), "of 400 tokens"), (Budget(money=0.0004), "of 0.0004 USD"),
    (Budget(money_per_day=0.0004), "of 0.0004 USD of this day"),
])  # fmt: skip
def test_a_budget_is_never_exceeded(budget: Budget, part: str) -> None:
    price = Price(input=1.0, output=1.0)
    with Loopback(answer=lambda body: "one two three four five six", latency=0.01) as server:
        engine = engine_at(server, concurrency=8, budget=budget, price=price)
        found, why = collect(engine.generate(requests_of(100)))
        assert len(found) == len(server.asked)
    used = engine.meter.ledger.total(run="run")
    assert why.startswith("budget reached: ") and part in why
    assert used == Use(len(found), 10 * len(found), 10_000 * len(found))
    assert used.calls <= (budget.calls or budget.calls_per_day or 99)
    assert used.tokens <= (budget.tokens or 400) and used.nanos <= 400_000
    if not (budget.calls or budget.calls_per_day):
        assert used.tokens >= 200, "what is held and not used is free again"


def test_a_budget_of_the_day_holds_for_the_next_run() -> None:
    ledger, budget = Ledger(":memory:"), Budget(calls_per_day=3)
    with Loopback() as server:
        collect(engine_at(server, ledger=ledger, budget=budget).generate(requests_of(5)))
        found, why = collect(
            engine_at(server, ledger=ledger, budget=budget).generate(requests_of(5))
        )
        assert len(server.asked) == 3 and found == [] and "of this day" in why
        tomorrow = engine_at(server, ledger=ledger, budget=budget)
        tomorrow.meter.today = lambda: "2026-01-02"
        assert len(run(tomorrow, requests_of(3))) == 3


def test_choices_of_one_token_are_ranked() -> None:
    top = [{"token": t, "logprob": p} for t, p in
           (("A", -1.0), (" A", -2.0), ("B", -3.0), ("x", -4.0))]  # fmt: skip
    more = {"logprobs": {"content": [{"token": "A", "logprob": -1.0, "top_logprobs": top}]}}
    message = ({"role": "user", "content": "A or B?"},)
    asked = [ChoiceRequest("r0", message, ("A", "B")), ChoiceRequest("r1", message, ("A", "Zebra"))]
    with Loopback(Say("A", more=more), Say("A", more=more)) as server:
        first, second = sorted(engine_at(server).choose(asked), key=lambda r: r.row_id)
        assert server.bodies[0]["top_logprobs"] == 20 and server.bodies[0]["max_tokens"] == 1
    assert first.sums == pytest.approx((np.logaddexp(-1, -2), -3.0)) and first.best == 0
    assert "'Zebra' is not among the 3 likeliest" in second.error
    with Loopback() as server, pytest.raises(EngineError, match="tells no log-probabilities"):
        list(engine_at(server).choose(asked))


def test_vectors() -> None:
    with Loopback(BROKEN) as server:
        engine = engine_at(server)
        found = engine.embed(["banana", "pea", "a"])
        assert server.asked[-1][0] == "/v1/embeddings"
        # The failed attempt counts with its bound: nobody says how far the model came.
        assert engine.meter.ledger.total(run="run") == Use(2, 3 + most_tokens(server.bodies[0]))
        with pytest.raises(EngineError, match="no hidden layers"):
            engine.embed(["x"], layer=3)
    np.testing.assert_array_equal(found, np.array([[6, 3], [3, 1], [1, 1]], np.float32))


def test_identity_is_the_model_and_its_revision_alone() -> None:
    def identity(**more: Any) -> str:
        return describe(OpenAISettings(MODEL, **more)).identity

    assert identity() == identity(endpoint="http://a/v1", concurrency=9, schema="lean", attempts=1)
    assert identity(revision="2026-01") == f"model:{MODEL}@2026-01" != identity()


def test_another_model_than_asked_for_is_told() -> None:
    with Loopback(Say("x", model=f"{MODEL}-2026-01-31"), Say("x", model="other")) as server:
        engine = engine_at(server)
        found = run(engine, requests_of(2))
    assert found["r0"].served == f"{MODEL}-2026-01-31"
    (note,) = engine.notes
    assert "answered by 'other'" in note
