"""What stored answers say of the next ones: counted by hand on a few books."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmers_pipelines.llm.budget import Budget
from llmers_pipelines.llm.fake import FakeEngine
from llmers_pipelines.llm.history import (
    Spending,
    answered,
    characters_per_token,
    costs,
    task_name,
)
from llmers_pipelines.llm.prompt_tokens import prompt_counter
from llmers_pipelines.llm.protocol import EngineInfo, Sampling
from llmers_pipelines.llm.runner import render, run_task
from llmers_pipelines.llm.survey import Other, Paid, survey
from llmers_pipelines.prompts.item_knowledge import ItemKnowledge
from llmers_pipelines.store.responses import ResponseStore

TASK = ItemKnowledge()
GOOD = "{} follows two sisters who keep an old lighthouse."
NO = "I am unable to help."


@pytest.fixture
def store(tmp_path: Path) -> ResponseStore:
    return ResponseStore(tmp_path / "store")


def words(row: dict[str, Any]) -> int:
    """Prompt tokens of the stand-in: words of its messages."""
    return sum(len(m["content"].split()) for m in render(TASK, "x", row, Sampling()).messages)


def refusing(books: list[Any], *ids: str) -> FakeEngine:
    replies: dict[str, Any] = {b["item_id"]: GOOD.format(b["title"]) for b in books}
    return FakeEngine(replies | {i: [NO, GOOD.format("Book")] for i in ids})


def test_each_question_is_counted_with_its_repair(store: ResponseStore, books: list[Any]) -> None:
    engine = refusing(books, "b0")
    run_task(TASK, books[:3], engine, store, progress=False)
    repair = sum(len(str(m["content"]).split()) for m in engine.asked[-1].messages)
    second = len(GOOD.format("Book").split())
    seen = survey(TASK, books, engine, store)
    assert (seen.rows, seen.cached, seen.new, len(seen.missing)) == (6, 3, 3, 2)
    first = seen.paid[0]
    assert (first.tokens_in, first.tokens_out) == (words(books[0]), len(NO.split()))
    assert (first.repaired, first.repair_in, first.repair_out) == (True, repair, second)
    assert seen.pending == 0 and not seen.paid[1].repaired
    found = sorted(costs(store, identity=engine.info.identity), key=lambda p: p.key)
    assert found == sorted(seen.paid, key=lambda p: p.key), "found again from requests alone"


def test_a_cut_answers_second_try_is_its_repair(store: ResponseStore, books: list[Any]) -> None:
    engine = FakeEngine({"b1": GOOD.format("Salt Road")}, cut=frozenset({"b1"}))
    run_task(TASK, books[1:2], engine, store, sampling=Sampling(max_tokens=9), progress=False)
    assert [r.max_tokens for r in engine.asked] == [9, 18]
    (paid,) = costs(store)
    assert (paid.tokens_out, paid.repair_out) == (9, len(GOOD.format("Salt Road").split()))
    assert paid.repaired and paid.repair_in == paid.tokens_in


def test_a_repair_that_a_budget_cut_off_is_due(store: ResponseStore, books: list[Any]) -> None:
    engine = refusing(books, "b0", "b1")
    result = run_task(TASK, books[:3], engine, store, budget=Budget(calls=3), progress=False)
    assert result.stopped
    seen = survey(TASK, books[:3], engine, store)
    assert seen.pending == 2 and seen.missing == ()
    spent = Spending(seen.paid)
    assert spent.repair_share == pytest.approx(2 / 3)
    # none was asked: prompt and refused answer again, and an answer as long as that one
    means = (words(books[0]) + words(books[1])) / 2
    told = len(NO.split())
    assert spent.one_repair == (pytest.approx(means + told), told)


def test_statistics_by_hand() -> None:
    paid = (Paid(100, 10), Paid(100, 20), Paid(110, 30, 150, 50, True), Paid(110, 40))
    spent = Spending(paid)
    assert spent.repair_share == 0.25 and spent.one_repair == (150, 50)
    assert spent.repairs(8)[0] == 2 and spent.repairs(8)[2] <= 8
    assert spent.written(8)[0] == 8 * (10 + 20 + 80 + 40) / 4
    assert spent.read_again(8)[0] == 8 * 150 / 4
    low, high = spent.written(8)[1:]
    assert low < 300 < high


def test_who_answered_before_is_told_by_model_and_revision(
    store: ResponseStore, books: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_task(TASK, books[:2], refusing(books), store, progress=False)
    run_task(TASK, books[:3], FakeEngine(model="other"), store, progress=False)
    first = TASK.prompt_revision
    monkeypatch.setattr(ItemKnowledge, "revision", 77)
    run_task(TASK, books[:1], FakeEngine(model="third"), store, progress=False)
    found = {(g.model, g.prompt_revision): g for g in answered(store, task_name(first))}
    assert {k: len(g.rows) for k, g in found.items()} == {
        ("fake", first): 2, ("other", first): 3, ("third", TASK.prompt_revision): 1,
    }  # fmt: skip
    assert answered(store, "item") == [], "a task whose name begins alike is another"
    assert found["other", first].rows == {"b0", "b1", "b2"}


def test_answers_of_another_model_to_the_same_question(
    store: ResponseStore, books: list[Any]
) -> None:
    run_task(TASK, books[:2], refusing(books), store, progress=False)
    mine = FakeEngine(model="mine")
    run_task(TASK, books[:1], mine, store, progress=False)
    other = Other("fake", "model:fake")
    seen = survey(TASK, books, mine, store, others=[other])
    assert seen.elsewhere == {"fake": 1}, "of two, one is stored for this model as well"
    warm = survey(TASK, books, mine, store, others=[other], sampling=Sampling(temperature=0.5))
    assert warm.elsewhere == {}, "another temperature is another question"


def test_prompt_tokens_without_a_tokenizer_are_calibrated(
    store: ResponseStore, books: list[Any]
) -> None:
    engine, settings = refusing(books), SimpleNamespace(model="m", model_revision="")
    message = [{"role": "user", "content": "x" * 80}]
    count, how, context = prompt_counter(settings, engine.info, store)
    assert count(message) == 20 and "assumed" in how and context == 0
    run_task(TASK, books[:3], engine, store, progress=False)
    read = sum(words(b) for b in books[:3])
    size = sum(
        len(m["content"]) for b in books[:3] for m in render(TASK, "x", b, Sampling()).messages
    )
    assert characters_per_token(costs(store)) == size / read
    count, how, _ = prompt_counter(settings, engine.info, store)
    assert count(message) == pytest.approx(80 * read / size) and "3 earlier answers" in how


def test_prompt_tokens_of_a_local_model_are_what_it_reads(
    store: ResponseStore, books: list[Any], tiny_lm: Path
) -> None:
    from llmers_pipelines.llm.hf import HfEngine, HfSettings

    engine = HfEngine(HfSettings(str(tiny_lm)))
    settings = SimpleNamespace(model=str(tiny_lm), model_revision="")
    count, how, context = prompt_counter(settings, engine.info, store)
    request = render(TASK, "b0", books[0], Sampling(max_tokens=2))
    (result,) = engine.generate([request])
    assert count(request.messages) == result.tokens_in and "own tokenizer" in how
    assert context == engine.context == 2048
    assert count([{"role": "user", "content": [{"type": "image", "image": b"x"}]}]) == 0


def test_a_remote_model_has_no_local_files(store: ResponseStore) -> None:
    info = EngineInfo(kind="remote", model="somewhere/model")
    settings = SimpleNamespace(model="somewhere/model", model_revision="")
    assert prompt_counter(settings, info, store)[0]([{"role": "user", "content": "abcd"}]) == 1
