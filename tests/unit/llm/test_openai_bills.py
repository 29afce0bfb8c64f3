"""What an attempt that failed is booked with, status by status, and what an echoed key becomes."""

from __future__ import annotations

from typing import Any

import pytest
from endpoint_kit import MODEL, engine_at, one, requests_of, run
from loopback import Loopback, Say

from llmers_pipelines.llm.chat_form import most_tokens
from llmers_pipelines.llm.key_scrub import HIDDEN, without_key
from llmers_pipelines.llm.ledger import Use
from llmers_pipelines.prices import Price

PRICE = Price(input=1.0, output=2.0)
LATER = {"Retry-After": "1"}
ANSWER = Use(1, 4 + 1, 6_000)  # "Question 0 of all" and "fine", a word a token


def booked(say: Say) -> tuple[Use, Use]:
    """Return what the failed attempt was booked with, and its bound."""
    with Loopback(say, Say("fine")) as server:
        result, engine = one(server, price=PRICE, timeout_seconds=0.4)
        most = most_tokens(server.bodies[0])
    assert result.text == "fine"
    total = engine.meter.ledger.total(run="run")
    assert result.tokens_in + result.tokens_out == total.tokens
    assert round(result.money * 1e9) == total.nanos
    spent = Use(total.calls - 1, total.tokens - ANSWER.tokens, total.nanos - ANSWER.nanos)
    return spent, Use(1, most + 10, 1000 * (most + 2 * 10))


@pytest.mark.parametrize("say", [
    Say(status=500), Say(status=502), Say(status=503), Say(status=504), Say(status=524),
    Say(status=520), Say(status=529), Say(status=408), Say(status=500, headers=LATER),
    Say(status=504, headers=LATER), Say(hang=0.8), Say(raw=b'{"error": {"code": 502}}'),
], ids=str)  # fmt: skip
def test_where_the_model_may_have_run_the_bound_counts(say: Say) -> None:
    spent, bound = booked(say)
    assert spent == bound


@pytest.mark.parametrize("say", [
    Say(status=503, headers=LATER), Say(status=529, headers=LATER), Say(status=409),
    Say(status=425), Say(status=501), Say(status=521), Say(status=522), Say(status=523),
], ids=str)  # fmt: skip
def test_where_nothing_ran_only_the_attempt_counts(say: Say) -> None:
    assert booked(say)[0] == Use(calls=1)


def test_a_throttled_call_counts_nothing() -> None:
    assert booked(Say(status=429, headers=LATER))[0] == Use()


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 200])
def test_a_fault_that_states_its_use_is_believed(status: int) -> None:
    body = b'{"error": {"message": "late"}, "usage": {"prompt_tokens": 30, "completion_tokens": 7}}'
    assert booked(Say(status=status, raw=body, headers=LATER))[0] == Use(1, 37, 30_000 + 14_000)
    nothing = body.replace(b"30", b"0").replace(b"7", b"0")
    assert booked(Say(status=status, raw=nothing))[0] == Use(calls=1)


@pytest.mark.parametrize("usage", [b'{"prompt_tokens": 30}', b'{"prompt_tokens": 1e9}', b"null"])
def test_a_fault_that_states_half_of_its_use_counts_with_the_bound(usage: bytes) -> None:
    spent, bound = booked(Say(status=500, raw=b'{"error": {}, "usage": ' + usage + b"}"))
    assert spent == bound


def test_a_refusal_that_states_its_use_is_booked() -> None:
    usage = {"prompt_tokens": 30, "completion_tokens": 0}
    raw = b'{"error": {"message": "content_filter"}, "usage": %s}' % str(usage).replace(
        "'", '"').encode()  # fmt: skip
    with Loopback(Say(status=400, raw=raw)) as server:
        result, engine = one(server, price=PRICE)
    assert result.error.startswith("HTTP 400") and result.tokens_in == 30
    assert engine.meter.ledger.total(run="run") == Use(1, 30, 30_000)


# --- keys that come back ---


@pytest.mark.parametrize("key", ["abcdefgh", "sk-15-chars-key", "sk-0123456789abcdef-longer"])
def test_an_echoed_key_is_hidden_in_answers(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with Loopback(Say(f"It is {key}.", model=f"{MODEL}-{key}")) as server:
        result, engine = one(server)
        assert server.asked[0][1]["authorization"] == f"Bearer {key}"
    assert result.text == f"It is {HIDDEN}." and key not in f"{result} {engine.notes}"


@pytest.mark.parametrize("key", ["EMPTY", "none", "sk-no-key-required", "not-needed", "lm-studio"])
def test_a_key_that_protects_nothing_leaves_answers_alone(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with Loopback(Say(f"It is {key}."), Say(status=400, error={"message": f"no {key}"})) as server:
        found = run(engine_at(server), requests_of(2))
    assert found["r0"].text == f"It is {key}." and key not in found["r1"].error


def test_which_keys_are_hidden_where() -> None:
    cases: list[tuple[str, str, bool, str]] = [
        ("a short word", "short", False, "a short word"), ("a short word", "short", True,
                                                           f"a {HIDDEN} word"),
        ("Empty rooms", "EMPTY", False, "Empty rooms"), ("no key", "", True, "no key"),
    ]  # fmt: skip
    for text, key, always, expected in cases:
        assert without_key(text, key, always=always) == expected


def test_settled_attempts_leave_no_hold() -> None:
    def rule(body: dict[str, Any], headers: Any) -> Say | None:
        return Say(status=502) if "Question 1" in str(body) else None

    with Loopback(rule=rule) as server:
        engine = engine_at(server, attempts=2, concurrency=3)
        run(engine, requests_of(6))
    held = engine.meter.ledger._db.execute("SELECT count(*) FROM held").fetchone()
    assert held == (0,) and engine.meter.ledger.total(run="run").calls == 7
