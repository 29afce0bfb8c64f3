"""Token counts that cannot be: they are booked with the bound, and cost nobody an answer."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from endpoint_kit import MODEL, engine_at, requests_of, run
from loopback import Loopback, Say, completion

from llmers_pipelines.llm.batch_export import outbox
from llmers_pipelines.llm.batch_import import import_batch
from llmers_pipelines.llm.budget import Budget
from llmers_pipelines.llm.ledger import Ledger, Use
from llmers_pipelines.llm.meter import Meter, utc_day
from llmers_pipelines.llm.openai import OpenAIEngine
from llmers_pipelines.llm.runner import run_task
from llmers_pipelines.llm.token_use import SLACK, usage_of
from llmers_pipelines.prices import Price
from llmers_pipelines.prompts.item_knowledge import ItemKnowledge
from llmers_pipelines.store.responses import ResponseStore

WRONG = [
    {"prompt_tokens": 3_000_000_000, "completion_tokens": 5},
    {"prompt_tokens": 10**30, "completion_tokens": 5},
    {"prompt_tokens": 10**9, "completion_tokens": 5},
    {"prompt_tokens": 100, "completion_tokens": 10**9},
    {"prompt_tokens": -5, "completion_tokens": 1}, {"prompt_tokens": 100},
    {"prompt_tokens": 0, "completion_tokens": 0}, {"prompt_tokens": 100, "completion_tokens": 0},
    {"prompt_tokens": True, "completion_tokens": 1}, {"prompt_tokens": "100"},
    {"prompt_tokens": math.nan, "completion_tokens": 5}, {"prompt_tokens": 1.5},
    {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": -1}},
    {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": True}},
]  # fmt: skip
PRICE = Price(input=1.0, output=2.0)


@pytest.mark.parametrize("usage", WRONG, ids=str)
def test_a_count_that_cannot_be_counts_with_the_bound(usage: dict[str, Any]) -> None:
    with Loopback(Say("fine", usage=usage), Say("fine", usage=False)) as server:
        engine = engine_at(server, price=PRICE)
        found = run(engine, requests_of(2))
    wrong, without = found["r0"], found["r1"]
    assert (wrong.text, wrong.error, wrong.tokens_out) == ("fine", "", 10)
    assert (wrong.tokens_in, wrong.money) == (without.tokens_in, without.money)
    assert 17 < wrong.tokens_in < 1000
    spent = engine.meter.ledger.total(run="run")
    assert spent == Use(2, 2 * (wrong.tokens_in + 10), round(2e9 * wrong.money))
    assert "2 answers came without usage" in engine.notes[0]


def test_hidden_instructions_and_reasoning_are_believed() -> None:
    usage = {"prompt_tokens": 5_000, "completion_tokens": SLACK // 2}
    with Loopback(Say("fine", usage=usage)) as server:
        result = run(engine_at(server), requests_of(1))["r0"]
    assert (result.tokens_in, result.tokens_out) == (5_000, SLACK // 2)


def test_vectors_and_empty_answers_need_no_answer_tokens() -> None:
    assert usage_of({"usage": {"prompt_tokens": 7}}) == (7, 0, 0)
    both = {"prompt_tokens": 7, "completion_tokens": 0}
    assert usage_of({"usage": both}, text="") == (7, 0, 0)
    assert usage_of({"usage": both}, text="words") is None
    cached = both | {"completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 99}}
    assert usage_of({"usage": cached}, text="words") == (7, 1, 7)


def test_one_wrong_count_takes_no_other_answer_with_it(tmp_path: Path) -> None:
    rows = [{"item_id": str(n), "title": f"Volume {n}"} for n in range(30)]

    def rule(body: dict[str, Any], headers: Any) -> Say:
        title = next(r["title"] for r in rows[::-1] if r["title"] in str(body))
        wrong = title == "Volume 7"
        usage = {"prompt_tokens": 10**30 if wrong else 50, "completion_tokens": 9}
        return Say(f"{title} follows two sisters who keep an old lighthouse.", usage=usage)

    store = ResponseStore(tmp_path / "store")
    with Loopback(rule=rule) as server:
        result = run_task(ItemKnowledge(), rows, engine_at(server, concurrency=4), store,
                          progress=False)  # fmt: skip
    assert set(result.rows["status"].to_pylist()) == {"ok"} and store.verify() == []
    assert ResponseStore(tmp_path / "store").stats()["rows"] == 30


def test_the_hold_of_a_wrong_count_is_settled(tmp_path: Path) -> None:
    path = tmp_path / "spending.sqlite"
    usage = {"prompt_tokens": 10**30, "completion_tokens": 5}
    with Loopback(rule=lambda *_: Say("fine", usage=usage)) as server:
        made = engine_at(server)
        meter = Meter(Ledger(path), Budget(), "run", MODEL, PRICE)
        run(OpenAIEngine(made.settings, meter, clock=made.clock, rate=made.rate), requests_of(6))
    ledger = Ledger(path)
    assert ledger.total(run="run").calls == 6
    assert ledger._db.execute("SELECT count(*) FROM held").fetchone() == (0,)


# --- batch files ---


def exported(data: Path, rows: int) -> list[dict[str, Any]]:
    """Put requests into the outbox as an export does; return the keys with their bodies."""
    out = []
    with outbox(data).writer() as writer:
        for n in range(rows):
            request = json.dumps({"messages": f"Question {n}", "sampling": {"max_tokens": 50}})
            key = writer.put(
                text="", finish_reason="exported", request=request, identity=f"model:{MODEL}",
                engine="openai", model=MODEL, libraries=json.dumps({"model": MODEL}), task="t",
                prompt_revision="t-r1-x", row_id=str(n),
            )  # fmt: skip
            out.append({"custom_id": key, "request": request})
    return out


def answers(data: Path, asked: list[dict[str, Any]], usage: dict[int, Any]) -> Path:
    file = data / "answers.jsonl"
    lines = []
    for n, one in enumerate(asked):
        told = usage.get(n, {"prompt_tokens": 20, "completion_tokens": 5})
        body = completion({"model": MODEL, "messages": []}, "An answer.", usage=told)
        lines.append(json.dumps({"custom_id": one["custom_id"], "error": None,
                                 "response": {"status_code": 200, "body": body}}))  # fmt: skip
    file.write_text("\n".join(lines))
    return file


def test_a_wrong_count_in_a_batch_file_costs_no_other_answer(tmp_path: Path) -> None:
    asked = exported(tmp_path, len(WRONG) + 5)
    file = answers(tmp_path, asked, dict(enumerate(WRONG)))
    ledger = Ledger(tmp_path / "spending.sqlite")
    done = import_batch(file, data=tmp_path, ledger=ledger, prices={MODEL: PRICE})
    assert (done.stored, done.uncounted, done.faults) == (len(asked), len(WRONG), [])
    bound = sum(len(a["request"].encode()) + 64 + 50 for a in asked[: len(WRONG)])
    assert ledger.total(day=utc_day()).tokens == bound + 5 * 25
    assert ResponseStore(tmp_path / "responses").verify() == []


def test_an_import_that_broke_off_books_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = exported(tmp_path, 6)
    file = answers(tmp_path, asked, {})
    ledger = Ledger(tmp_path / "spending.sqlite")
    # The disk is full when the answers are written, after they were booked.
    with monkeypatch.context() as patch:

        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr("llmers_pipelines.store.segments.SegmentFolder.publish", full)
        for _ in range(3):
            with pytest.raises(OSError, match="No space"):
                import_batch(file, data=tmp_path, ledger=ledger, prices={MODEL: PRICE})
            assert ledger.total(day=utc_day()) == Use(6, 150, 6 * 30_000)
    # Another file with the same lines, and one more answer: only that one is new.
    more = exported(tmp_path, 7)
    done = import_batch(answers(tmp_path, more, {}), data=tmp_path, ledger=ledger,
                        prices={MODEL: PRICE})  # fmt: skip
    assert done.stored == 7 and ledger.total(day=utc_day()) == Use(7, 175, 7 * 30_000)
    assert ledger._db.execute("SELECT count(*) FROM booked").fetchone() == (0,)
    again = import_batch(file, data=tmp_path, ledger=ledger, prices={MODEL: PRICE})
    assert again.known == 7 and ledger.total(day=utc_day()).calls == 7


def test_the_key_is_hidden_in_answers_of_a_file(tmp_path: Path) -> None:
    key = "sk-15-chars-key"
    asked = exported(tmp_path, 3)
    lines = [json.loads(t) for t in answers(tmp_path, asked, {}).read_text().splitlines()]
    lines[0]["response"]["body"]["choices"][0]["message"]["content"] = f"It is {key}."
    lines[1]["response"]["body"]["model"] = f"other {key}"
    lines[2] |= {"response": None, "error": {"code": "x", "message": f"bad key {key}"}}
    file = tmp_path / "echo.jsonl"
    cut = "x" * 190 + key  # would be cut in the middle of the key
    file.write_text("\n".join([*map(json.dumps, lines), cut]))
    done = import_batch(file, data=tmp_path, ledger=Ledger(":memory:"), prices={}, key=key)
    store = ResponseStore(tmp_path / "responses")
    assert store.lookup([asked[0]["custom_id"]])[asked[0]["custom_id"]].text == "It is [key]."
    assert len(done.faults) == 2 and sum(done.failed.values()) == 1
    assert key[:8] not in f"{done} {done.faults} {done.failed}"
