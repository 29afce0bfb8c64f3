"""Faults of an endpoint, one by one, against a real server on this machine, and what they cost."""

from __future__ import annotations

from typing import Any

import pytest
from endpoint_kit import KEY, collect, engine_at, one, requests_of, run
from loopback import BROKEN, RESET, Loopback, Say, slow_down, words

from llmers_pipelines.llm.chat_form import most_tokens
from llmers_pipelines.llm.ledger import Use
from llmers_pipelines.llm.openai import OpenAIEngine, OpenAISettings, address
from llmers_pipelines.llm.protocol import EngineError
from llmers_pipelines.prices import Price


def test_throttling_uses_up_no_attempt_and_holds_everybody_back() -> None:
    with Loopback(*[slow_down("7")] * 5) as server:
        result, engine = one(server, attempts=1)
    assert (result.error, result.attempts, result.throttled) == ("", 1, 5)
    assert len(engine.clock.waits) == 5 and all(7 <= w <= 8.75 for w in engine.clock.waits)
    assert engine.meter.ledger.total(run="run").calls == 1


def test_throttling_without_a_time_backs_off() -> None:
    with Loopback(*[slow_down("0")] * 6) as server:
        result, engine = one(server, attempts=1)
    assert result.throttled == 6
    assert all(0 <= w <= 1.25 * 2**n for n, w in enumerate(engine.clock.waits))
    assert engine.clock.time > 0


def test_throttling_has_a_deadline_of_its_own() -> None:
    with Loopback(rule=lambda *_: slow_down("100")) as server:
        engine = engine_at(server, throttle_seconds=350, concurrency=2)
        found, why = collect(engine.generate(requests_of(50)))
        assert len(server.asked) <= 8, "3 waits of 100 s per worker, then no further row"
    assert "wait for more than 350 s" in why and all(why == r.error for r in found)


def test_a_row_that_is_always_throttled_ends_alone() -> None:
    def rule(body: dict[str, Any], headers: Any) -> Say | None:
        return slow_down("60") if "Question 0" in str(body) else None

    with Loopback(rule=rule) as server:
        found = run(engine_at(server, concurrency=2, throttle_seconds=2000), requests_of(30))
    assert "wait for more than 2000 s" in found["r0"].error and found["r0"].throttled > 5
    assert sum(not r.error for r in found.values()) == 29


@pytest.mark.parametrize("status", [429, 503])
def test_workers_that_are_told_one_moment_come_at_different_ones(status: int) -> None:
    later = Say(status=status, headers={"Retry-After": "40"}, error={"message": "busy"})
    with Loopback(*[later] * 6) as server:
        engine = engine_at(server, concurrency=6)
        found = run(engine, requests_of(6))
    waits = [w for w in engine.clock.waits if w >= 40]
    assert not any(r.error for r in found.values()) and all(w <= 50 for w in waits)
    assert len(waits) == len(set(waits)) >= 2


def test_a_used_up_quota_stops_the_run() -> None:
    with Loopback(Say("first"), slow_down(code="insufficient_quota")) as server:
        found, why = collect(engine_at(server).generate(requests_of(9)))
        assert len(server.asked) == 2
    assert found[0].text == "first" and "quota is used up" in why


@pytest.mark.parametrize("fault", [
    BROKEN, RESET, Say(text="x", cut=True), Say(raw=b"<html>bad gateway</html>"),
    Say(raw=b'{"object": "chat.completion"}'), Say(hang=0.6), Say(status=503), Say(status=408),
    Say(raw=b'{"error": {"message": "upstream", "code": 502}}'),
])  # fmt: skip
def test_what_passes_is_tried_again(fault: Say) -> None:
    with Loopback(fault, fault, Say("at last")) as server:
        result, engine = one(server, timeout_seconds=0.3)
        assert len(server.asked) == 3
    assert (result.text, result.attempts) == ("at last", 3)
    spans = [w for w in engine.clock.waits if w]
    assert len(spans) <= 2 and all(w <= 2**n for n, w in enumerate(spans))


def test_attempts_end_with_the_last_reason() -> None:
    with Loopback(rule=lambda *_: BROKEN) as server:
        result, engine = one(server, attempts=3)
    assert result.error == "3 attempts failed; the last: HTTP 500: the server tripped"
    most_in = most_tokens(server.bodies[0])
    assert (result.attempts, result.tokens_in, result.tokens_out) == (3, 3 * most_in, 3 * 10)
    assert engine.meter.ledger.total(run="run") == Use(3, 3 * (most_in + 10))


def test_retry_after_is_kept_for_server_errors_too() -> None:
    busy = Say(status=503, headers={"Retry-After": "Tue, 14 Nov 2023 22:13:50 GMT"})
    with Loopback(busy) as server:
        result, engine = one(server)
    (wait,) = engine.clock.waits
    assert result.error == "" and 30 <= wait <= 37.5


@pytest.mark.parametrize("lost", [Say(hang=0.6), RESET, Say(cut=True), Say(raw=b"}{")])
def test_an_attempt_whose_use_nobody_tells_counts_with_its_bound(lost: Say) -> None:
    with Loopback(lost, Say("fine")) as server:
        result, engine = one(server, timeout_seconds=0.3, price=Price(input=1, output=1))
        bound = result.tokens_in - words(server.bodies[1])
    assert bound >= len("Question 0 of all") and result.tokens_out == 10 + 1
    total = engine.meter.ledger.total(run="run")
    assert total == Use(2, result.tokens_in + result.tokens_out, round(result.money * 1e9))


def test_an_answer_without_usage_counts_with_its_bound_and_says_so() -> None:
    with Loopback(Say("fine", usage=False)) as server:
        result, engine = one(server)
    assert result.tokens_out == 10 and result.tokens_in > 17
    assert "came without usage" in engine.notes[0]


@pytest.mark.parametrize(("say", "kind"), [
    (Say(status=400, error={"message": "maximum context length is 8 tokens"}), "row"),
    (Say(status=413), "row"), (Say(status=400, error={"message": "content_filter"}), "row"),
    (Say(status=401, error={"message": f"Incorrect API key provided: {KEY}"}), "key"),
    (Say(status=404, error={"message": "no such model"}), "llm.model"),
    (Say(status=402, error={"message": "pay"}), "paid"),
    (Say(status=307, headers={"Location": "http://127.0.0.1:1/"}), "redirects"),
])  # fmt: skip
def test_refusals_end_a_row_or_the_run(say: Say, kind: str) -> None:
    with Loopback(say) as server:
        engine = engine_at(server)
        if kind == "row":
            found = run(engine, requests_of(2))
            assert found["r0"].error.startswith("HTTP 4") and found["r1"].text == "An answer."
        else:
            found, why = collect(engine.generate(requests_of(3)))
            assert kind in why and KEY not in why and len(server.asked) == 1
            assert KEY not in str(found)


def test_an_endpoint_that_refuses_every_row_is_left_alone() -> None:
    with Loopback(rule=lambda *_: Say(status=400, error={"message": "no"})) as server:
        found, why = collect(engine_at(server).generate(requests_of(200)))
        assert len(server.asked) == len(found) == 20
    assert "refuses every request" in why


def test_a_dead_endpoint_opens_the_breaker_and_keeps_the_answers() -> None:
    def rule(body: dict[str, Any], headers: Any) -> Say | None:
        return BROKEN if len(server.asked) > 5 else None

    with Loopback(rule=rule) as server:
        engine = engine_at(server, attempts=100, breaker_failures=4, breaker_probes=3,
                           breaker_cooldown=1000.0)  # fmt: skip
        found, why = collect(engine.generate(requests_of(60)))
        assert len(server.asked) == 5 + 4 + 3
    assert sum(not r.error for r in found) == 5
    assert why.startswith("the endpoint failed 7 times in a row") and "tripped" in why
    assert sum(w >= 900 for w in engine.clock.waits) == 3


def test_nobody_listens() -> None:
    engine = engine_at("http://127.0.0.1:9/v1", breaker_failures=2, breaker_probes=1)
    found, why = collect(engine.generate(requests_of(3)))
    assert "Connection refused" in why and all(r.error for r in found)
    assert engine.meter.ledger.total(run="run").tokens == 0, "nothing was reached"


@pytest.mark.parametrize(("settings", "says"), [
    ({"endpoint": "http://user:pass-word@a/v1"}, "llm.endpoint holds a user"),
    ({"endpoint": "http://a/v1?key=pass-word"}, "llm.endpoint holds a user"),
    ({"endpoint": "a.example/v1"}, "not an address"),
    ({"api_key_env": "sk-pass-word"}, "the name of an environment variable"),
    ({"api_key_env": "ODD_KEY"}, "does not hold a key"),
])  # fmt: skip
def test_settings_that_may_hold_a_secret_are_refused_unseen(
    settings: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD_KEY", "pass-word\nInjected: header")
    engine = OpenAIEngine(OpenAISettings("m", **({"endpoint": "http://a/v1"} | settings)))
    with pytest.raises(EngineError, match=says) as error:
        list(engine.generate(requests_of(1)))
    assert "pass-word" not in str(error.value)


@pytest.mark.parametrize(("settings", "says"), [
    ({"model": ""}, "needs llm.model"), ({"schema": "strict"}, "full, lean, none"),
    ({"token_limit": "tokens"}, "max_completion_tokens"), ({"concurrency": 0}, "at least 1"),
    ({"timeout_seconds": 0}, "must be positive"),
])  # fmt: skip
def test_wrong_settings_say_the_mend(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(EngineError, match=says):
        OpenAIEngine(OpenAISettings(**({"model": "m"} | settings)))


@pytest.mark.parametrize(
    "endpoint", ["http://a/v1", "http://a/v1/", "http://a/v1/chat/completions"]
)
def test_the_base_address_is_found(endpoint: str) -> None:
    assert address(endpoint) == "http://a/v1"
