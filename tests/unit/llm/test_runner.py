"""The runner: an answer is paid for once, checked, repaired once, and never silently lost."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pytest
from pydantic import BaseModel

from llmers_pipelines.llm.budget import Budget
from llmers_pipelines.llm.fake import FakeEngine
from llmers_pipelines.llm.protocol import GenRequest, Sampling
from llmers_pipelines.llm.runner import COUNTS, run_task
from llmers_pipelines.llm.survey import Survey, survey
from llmers_pipelines.llm.template import TemplateEngine
from llmers_pipelines.prompts.item_knowledge import ItemKnowledge
from llmers_pipelines.prompts.item_summary import ItemSummary
from llmers_pipelines.prompts.task import PromptTask
from llmers_pipelines.store.responses import ResponseStore

TASK = ItemKnowledge()
GOOD = "{} follows two sisters who keep an old lighthouse."


@pytest.fixture
def store(tmp_path: Path) -> ResponseStore:
    return ResponseStore(tmp_path / "store")


def good(books: list[dict[str, Any]]) -> dict[str, str]:
    return {b["item_id"]: GOOD.format(b["title"]) for b in books}


def statuses(result: Any) -> list[str]:
    return result.rows["status"].to_pylist()


def accounted(counts: dict[str, float]) -> float:
    return sum(counts[n] for n in ("llm_calls", "cache_hits", "recorded", "templated", "deduped"))


def test_rows_come_back_in_order_with_all_columns(store: ResponseStore, books: list[Any]) -> None:
    result = run_task(TASK, books, FakeEngine(good(books)), store, progress=False)
    assert result.rows.column_names == [
        "item_id", "text", "status", "reason", "raw", "request_key", "prompt_revision", "model",
        "truncated",
    ]  # fmt: skip
    assert result.rows["item_id"].to_pylist() == [b["item_id"] for b in books]
    assert result.rows["text"].to_pylist() == list(good(books).values())
    assert statuses(result) == ["ok"] * 6
    assert set(result.rows["prompt_revision"].to_pylist()) == {TASK.prompt_revision}
    assert set(result.rows["model"].to_pylist()) == {"fake"}
    assert set(result.counts) == {*COUNTS, "seconds"}
    row = pa.Table.from_pylist(result.rows.to_pylist()).slice(0, 1).to_pylist()[0]
    assert store.lookup([row["request_key"]])[row["request_key"]].text == row["raw"]


def test_equal_prompts_are_one_call(store: ResponseStore, books: list[Any]) -> None:
    engine = FakeEngine(good(books))
    result = run_task(TASK, books, engine, store, progress=False)
    assert result.counts["llm_calls"] == len(engine.asked) == 5  # the twins ask the same
    assert result.counts["deduped"] == 1
    keys = result.rows["request_key"].to_pylist()
    assert keys[4] == keys[5] and len(set(keys)) == 5


def test_a_second_run_calls_nothing(store: ResponseStore, books: list[Any]) -> None:
    first = run_task(TASK, books, FakeEngine(good(books)), store, progress=False)
    engine = FakeEngine()
    again = run_task(TASK, books, engine, store, progress=False)
    assert engine.asked == []
    assert again.rows.equals(first.rows)
    assert (again.counts["cache_hits"], again.counts["llm_calls"]) == (5, 0)
    assert again.counts["tokens_in"] == again.counts["tokens_out"] == 0


def test_a_changed_row_costs_one_call(store: ResponseStore, books: list[Any]) -> None:
    run_task(TASK, books, FakeEngine(good(books)), store, progress=False)
    books[1] = books[1] | {"title": "Salt Road, revised"}
    engine = FakeEngine(good(books))
    result = run_task(TASK, books, engine, store, progress=False)
    assert [r.row_id for r in engine.asked] == ["b1"]
    assert result.counts["llm_calls"] == 1 and result.counts["cache_hits"] == 4


def test_another_model_or_sampling_asks_anew(store: ResponseStore, books: list[Any]) -> None:
    run_task(TASK, books, FakeEngine(good(books)), store, progress=False)
    other = FakeEngine(good(books), model="another")
    assert run_task(TASK, books, other, store, progress=False).counts["llm_calls"] == 5
    warm = Sampling(temperature=0.7)
    same = FakeEngine(good(books))
    counts = run_task(TASK, books, same, store, sampling=warm, progress=False).counts
    assert counts["llm_calls"] == 5
    assert same.asked[0].max_tokens == TASK.max_tokens and same.asked[0].temperature == 0.7
    short = run_task(TASK, books, same, store, sampling=Sampling(max_tokens=9), progress=False)
    assert short.counts["llm_calls"] == 5 and same.asked[-1].max_tokens == 9


def test_a_refused_answer_is_asked_again_with_the_reason(
    store: ResponseStore, books: list[Any]
) -> None:
    replies: dict[str, Any] = good(books) | {"b0": ["I am unable to help.", GOOD.format("Clock")]}
    engine = FakeEngine(replies)
    result = run_task(TASK, books, engine, store, progress=False)
    row = result.rows.to_pylist()[0]
    assert row["status"] == "repaired" and "declines" in row["reason"]
    assert row["text"] == GOOD.format("Clock")
    repair = engine.asked[-1]
    assert [m["role"] for m in repair.messages] == ["system", "user", "assistant", "user"]
    assert repair.messages[2]["content"] == "I am unable to help."
    assert "declines" in repair.messages[3]["content"]
    assert result.counts["llm_calls"] == 6 and result.counts["repaired"] == 1
    silent = FakeEngine()
    again = run_task(TASK, books, silent, store, progress=False)
    assert silent.asked == [] and again.rows.equals(result.rows)  # the repair is stored as well
    assert again.counts["cache_hits"] == 6


def test_refused_twice_is_quarantined_with_both_reasons(
    store: ResponseStore, books: list[Any]
) -> None:
    replies: dict[str, Any] = good(books) | {"b0": ["I am unable to help.", "A pig herds sheep."]}
    engine = FakeEngine(replies)
    result = run_task(TASK, books, engine, store, progress=False)
    row = result.rows.to_pylist()[0]
    assert row["status"] == "quarantined" and row["text"] is None
    assert row["raw"] == "I am unable to help."
    assert "declines" in row["reason"] and "asked again: nothing in the answer" in row["reason"]
    assert [r.row_id for r in engine.asked].count("b0") == 2  # once, never more
    assert statuses(result).count("ok") == 5


def test_a_cut_answer_gets_twice_the_room(store: ResponseStore, books: list[Any]) -> None:
    engine = FakeEngine(good(books), cut=frozenset({"b0"}), always_cut=frozenset({"b1"}))
    result = run_task(TASK, books, engine, store, progress=False)
    assert statuses(result)[:3] == ["repaired", "quarantined", "ok"]
    repairs = [r for r in engine.asked if r.max_tokens == 2 * TASK.max_tokens]
    assert {r.row_id for r in repairs} == {"b0", "b1"}
    assert all(len(r.messages) == 2 for r in repairs)
    reason = result.rows["reason"].to_pylist()[1]
    cut = "the answer was cut at {} tokens"
    assert reason == f"{cut.format(400)}; asked again: {cut.format(800)}"


def test_a_row_that_cannot_be_asked_costs_nothing(store: ResponseStore, books: list[Any]) -> None:
    rows = [*books[:2], {"item_id": "empty", "title": None}]
    engine = FakeEngine(good(books), too_long=frozenset({"b1"}))
    result = run_task(TASK, rows, engine, store, progress=False)
    assert statuses(result) == ["ok", "no_answer", "no_answer"]
    assert "exceeds the context" in result.rows["reason"].to_pylist()[1]
    assert "no words" in result.rows["reason"].to_pylist()[2]
    assert result.rows["raw"].to_pylist()[1:] == [None, None]
    assert result.counts["no_answer"] == 2 and result.counts["llm_calls"] == 1
    assert store.stats()["rows"] == 1  # a failure is not an answer: it is tried again next time


def test_every_row_is_accounted_for(store: ResponseStore, books: list[Any]) -> None:
    replies: dict[str, Any] = good(books) | {"b0": ["no", GOOD.format("Clock")]}
    for _ in range(2):
        engine = FakeEngine(replies)
        counts = run_task(TASK, books, engine, store, progress=False).counts
        assert accounted(counts) == len(books) + 1  # one repair
        replies = {}


def test_fallback_is_the_template_and_says_so(store: ResponseStore, books: list[Any]) -> None:
    rows = [*books[:2], {"item_id": "empty"}]
    engine = FakeEngine(good(books) | {"b0": "no", "b1": GOOD.format("Salt Road")})
    result = run_task(TASK, rows, engine, store, progress=False, fallback=True)
    assert statuses(result) == ["fallback", "ok", "no_answer"]
    first = result.rows.to_pylist()[0]
    assert first["text"] == TASK.text(TASK.template(books[0]))
    assert first["model"] == "no LLM (template)" and first["raw"] == "no" and first["reason"]


def test_the_template_engine_needs_no_store_and_counts_no_call(books: list[Any]) -> None:
    result = run_task(TASK, books, TemplateEngine(), None, progress=False)
    assert statuses(result) == ["ok"] * 6
    assert result.counts["templated"] == 6 and result.counts["llm_calls"] == 0
    assert set(result.rows["model"].to_pylist()) == {"no LLM (template)"}
    assert result.rows["text"].to_pylist()[0] == TASK.text(TASK.template(books[0]))


def test_the_template_is_never_refused_for_saying_little(store: ResponseStore) -> None:
    result = run_task(TASK, [{"item_id": "1", "title": "Pen"}], TemplateEngine(), store)
    assert statuses(result) == ["ok"] and store.stats()["rows"] == 0


def test_a_model_needs_a_store(books: list[Any]) -> None:
    with pytest.raises(ValueError, match="needs a response store"):
        run_task(TASK, books, FakeEngine(), None)


def test_json_answers_have_a_column_per_field(store: ResponseStore, books: list[Any]) -> None:
    answer = {"summary": GOOD.format("Clock"), "themes": ["sea"], "mood": "calm", "audience": "all"}
    engine = FakeEngine({"b0": json.dumps(answer), "b1": '{"summary": "cut'})
    result = run_task(ItemSummary(), books[:2], engine, store, progress=False)
    assert result.rows.schema.field("themes").type == pa.list_(pa.string())
    rows = result.rows.to_pylist()
    assert {name: rows[0][name] for name in answer} == answer
    assert rows[1]["status"] == "quarantined" and rows[1]["summary"] is None
    assert engine.asked[0].schema == ItemSummary().row_schema(books[0])


def test_budget_of_calls_stops_cleanly_and_keeps_what_was_paid(
    store: ResponseStore, books: list[Any]
) -> None:
    engine = FakeEngine(good(books), batch=100)  # would answer all rows before it looks again
    result = run_task(TASK, books, engine, store, budget=Budget(calls=2), progress=False)
    assert statuses(result) == ["ok", "ok", *["no_answer"] * 4]
    assert result.stopped == "budget reached: 2 calls"
    assert result.rows["reason"].to_pylist()[2] == result.stopped
    assert result.counts["llm_calls"] == len(engine.asked) == 2
    rest = FakeEngine(good(books))
    done = run_task(TASK, books, rest, store, budget=Budget(calls=3), progress=False)
    assert statuses(done) == ["ok"] * 6 and len(rest.asked) == 3 and done.stopped == ""


def test_budget_of_tokens_finishes_the_batch_that_was_begun(
    store: ResponseStore, books: list[Any]
) -> None:
    engine = FakeEngine(good(books), batch=2)
    result = run_task(TASK, books, engine, store, budget=Budget(tokens=10), progress=False)
    assert len(engine.asked) == 2 and statuses(result)[:2] == ["ok", "ok"]
    assert result.stopped.startswith("budget reached: ") and "of 10 tokens" in result.stopped
    assert store.stats()["rows"] == 2


def test_a_repair_that_the_budget_forbids_says_so(store: ResponseStore, books: list[Any]) -> None:
    engine = FakeEngine({"b0": "no"})
    result = run_task(TASK, books[:1], engine, store, budget=Budget(calls=1), progress=False)
    (reason,) = result.rows["reason"].to_pylist()
    assert reason.endswith("asked again: budget reached: 1 calls") and len(engine.asked) == 1


def test_users_from_an_arrow_table(store: ResponseStore) -> None:
    from llmers_pipelines.prompts.user_preference import UserPreference

    history = [[{"item_id": "1", "title": "Salt Road", "rating": 5.0}], []]
    table = pa.table({"user_id": ["u1", "u2"], "history": history})
    text = 'The user speaks well of "Salt Road" and has told of nothing else so far.'
    result = run_task(UserPreference(), table, FakeEngine({"u1": text}), store, progress=False)
    assert statuses(result) == ["ok", "no_answer"]
    assert result.rows["text"].to_pylist() == [text, None]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"title": "x"}], "row 0: no item_id; found title"),
        ([{"item_id": "1"}, {"item_id": 1}], "row 1: item_id 1 a second time"),
    ],
)
def test_rows_need_an_id_of_their_own(
    store: ResponseStore, rows: list[Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run_task(TASK, rows, FakeEngine(), store)


def test_preview_tells_the_calls_before_anything_runs(
    store: ResponseStore, books: list[Any]
) -> None:
    rows = [*books, {"item_id": "empty"}]
    engine = FakeEngine(good(books))
    before = survey(TASK, rows, engine, store)
    assert (before.rows, before.askable, before.new, len(before.missing)) == (7, 6, 6, 5)
    run_task(TASK, rows[:3], engine, store, progress=False)
    engine.asked.clear()
    after = survey(TASK, rows, engine, store)
    assert (after.cached, after.stored, after.new, len(after.missing)) == (3, 3, 3, 2)
    assert engine.asked == []
    assert survey(TASK, rows, TemplateEngine(), None) == Survey(7, 6)


def test_progress_is_reported(store: ResponseStore, books: list[Any]) -> None:
    seen: list[tuple[int, int, int]] = []
    run_task(TASK, books, FakeEngine(good(books)), store, progress=lambda *n: seen.append(n))
    assert [done for done, *_ in seen] == [1, 2, 3, 4, 5] and seen[-1][1] == 5
    assert seen[-1][2] > 0


class Verdict(BaseModel):
    choice: Literal["yes", "no"]
    weight: float | None


@dataclass(frozen=True)
class Judge(PromptTask):
    """A task whose own code fails on some answers."""

    produces: ClassVar[str] = "rationales"
    answer: ClassVar[type[BaseModel]] = Verdict

    def render(self, row: Any, context: Any = None) -> list[dict[str, str]]:
        return [{"role": "user", "content": str(row["title"])}]

    def ground(self, value: Any, row: Any) -> list[str]:
        return [f"odds of {odds}"] if (odds := 1 / value["weight"]) > 1 else []

    def template(self, row: Any, context: Any = None) -> dict[str, Any]:
        return {"choice": "no", "weight": None}

    def text(self, value: Any) -> str:
        return value["choice"]


def test_a_tasks_own_failure_costs_its_row_alone(store: ResponseStore, books: list[Any]) -> None:
    replies = {"b0": '{"choice": "yes", "weight": 0}', "b1": '{"choice": "yes", "weight": 2}'}
    result = run_task(Judge(), books[:2], FakeEngine(replies), store, progress=False)
    assert statuses(result) == ["quarantined", "ok"]
    assert "ZeroDivisionError" in result.rows["reason"].to_pylist()[0]
    assert result.rows.schema.field("weight").type == pa.float64()
    assert result.rows.schema.field("choice").type == pa.string()


def test_a_field_that_hides_a_column_is_named(store: ResponseStore, books: list[Any]) -> None:
    class Bad(BaseModel):
        status: Literal["x"]

    @dataclass(frozen=True)
    class BadTask(Judge):
        answer: ClassVar[type[BaseModel]] = Bad

    with pytest.raises(TypeError, match=r"Bad\.status: the name belongs to a column"):
        run_task(BadTask(), books[:1], FakeEngine({"b0": '{"status": "x"}'}), store)


def test_the_same_answers_whatever_the_order_of_rows(
    store: ResponseStore, books: list[Any], tmp_path: Path
) -> None:
    first = run_task(TASK, books, FakeEngine(good(books)), store, progress=False)
    other = ResponseStore(tmp_path / "other")
    second = run_task(TASK, books[::-1], FakeEngine(good(books)), other, progress=False)
    by_id = {r["item_id"]: r for r in second.rows.to_pylist()}
    assert [by_id[b["item_id"]] for b in books] == first.rows.to_pylist()


def test_an_interrupted_run_keeps_everything_that_arrived(
    store: ResponseStore, books: list[Any]
) -> None:
    def interrupt(request: GenRequest) -> str:
        raise KeyboardInterrupt

    replies: dict[str, Any] = good(books) | {"b3": interrupt}
    with pytest.raises(KeyboardInterrupt):
        run_task(TASK, books, FakeEngine(replies), store, progress=False)
    assert store.stats()["rows"] == 3


def test_a_template_change_asks_anew_and_the_old_answers_stay(
    store: ResponseStore, books: list[Any]
) -> None:
    run_task(TASK, books, FakeEngine(good(books)), store, progress=False)
    longer = dataclasses.replace(TASK, words=300)
    counts = run_task(longer, books, FakeEngine(good(books)), store, progress=False).counts
    assert counts["llm_calls"] == 5 and store.stats()["keys"] == 10
    back = run_task(TASK, books, FakeEngine(), store, progress=False)
    assert back.counts["llm_calls"] == 0


def test_hf_runs_under_the_runner(store: ResponseStore, tiny_lm: Path, books: list[Any]) -> None:
    from llmers_pipelines.llm.hf import HfEngine, HfSettings

    def run() -> Any:
        engine = HfEngine(HfSettings(str(tiny_lm)))
        short = dataclasses.replace(TASK, max_tokens=5)
        return engine, run_task(short, books[:3], engine, store, progress=False, fallback=True)

    engine, first = run()
    assert first.counts["llm_calls"] >= 3 and first.counts["tokens_out"] > 0
    assert set(statuses(first)) <= {"ok", "repaired", "fallback"}
    fresh, second = run()
    assert second.counts["llm_calls"] == 0 and second.rows.equals(first.rows)
    assert "model" not in vars(fresh)  # served by the store: nothing was loaded
    engine.close()
