"""What a trace tells of answers that were repaired, refused, cut or never given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shop import Shop, same_environment
from starlette.testclient import TestClient

from llmers_pipelines.llm import factory
from llmers_pipelines.llm.fake import FakeEngine
from llmers_pipelines.orchestrate.lineage_url import row_path
from llmers_pipelines.orchestrate.trace import Stored, trace_row
from llmers_pipelines.orchestrate.trace.form import AnswerRow
from llmers_pipelines.prompts.item_summary import ItemSummary
from llmers_pipelines.web.app import create_app
from llmers_pipelines.web.site import Site

SUMMARY = "item_summaries/item_summary"
GOOD = json.dumps({
    "summary": "The Sea Book 3 follows people who live by the sea.", "themes": ["sea", "ships"],
    "mood": "calm", "audience": "adult readers",
})  # fmt: skip
# Says nothing of the book by its title: readable, but not grounded.
LOOSE = json.dumps({"summary": "Buy it now.", "themes": ["a"], "mood": "x", "audience": "y"})


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop whose summaries a scripted model wrote, with each fault once."""
    with same_environment(), pytest.MonkeyPatch.context() as patch:
        shop = Shop.open(tmp_path_factory.mktemp("asked"))
        engine = FakeEngine(
            replies={"b03": ["no JSON at all", GOOD], "b04": "still no JSON",
                     "b05": ["neither", LOOSE]},
            cut=frozenset({"b06"}), always_cut=frozenset({"b07"}), too_long=frozenset({"b08"}),
        )  # fmt: skip
        patch.setattr(factory, "make_engine", lambda *args, **more: engine)
        patch.setattr(factory, "engine_info", lambda settings: engine.info)
        shop.work(SUMMARY, engine="hf", model="a-model")
        yield shop


def stored(shop: Shop) -> Stored:
    changes = {"engine": "hf", "model": "a-model"}
    return Stored(shop.settings(**changes), "shop", shop.plan(**changes))


def answer(shop: Shop, row_id: str) -> AnswerRow:
    content = trace_row(stored(shop), SUMMARY, row_id).steps[-1].content
    assert isinstance(content, AnswerRow)
    return content


def test_an_accepted_answer_tells_how_it_was_asked(asked: Shop) -> None:
    told = answer(asked, "b01")
    assert told.prompt.origin == "asked" and told.prompt.note == ""
    assert "The Crime Book 1" in told.prompt.messages[-1]["content"]
    assert told.prompt.schema is not None and told.prompt.sampling["temperature"] == 0.0
    assert (told.engine.kind, told.engine.model) == ("fake", "fake") and told.engine.identity
    (attempt,) = told.attempts
    assert attempt.stored and attempt.tokens_in > 0 and attempt.stage == "" and attempt.asked
    assert attempt.parsed is not None and attempt.parsed["summary"] in (told.text or "")
    assert told.status == "ok" and set(told.value) == {"summary", "themes", "mood", "audience"}


def test_a_repaired_answer_shows_both_attempts_in_order(asked: Shop) -> None:
    told = answer(asked, "b03")
    first, second = told.attempts
    assert (first.raw, first.stage) == ("no JSON at all", "parse") and first.stored
    assert "not valid JSON" in first.reason and "not valid JSON" in first.asked_again
    assert (second.raw, second.stage, second.reason) == (GOOD, "", "")
    assert told.status == "repaired" and told.reason == first.reason
    assert len(told.prompt.messages) == 2, "the first question, without the repair"
    assert (told.text or "").startswith("The Sea Book 3")


def test_an_answer_that_was_refused_twice_shows_why_each_time(asked: Shop) -> None:
    for row_id, raws in (("b04", ["still no JSON"] * 2), ("b05", ["neither", LOOSE])):
        told = answer(asked, row_id)
        assert [a.raw for a in told.attempts] == raws, row_id
        assert told.status == "quarantined" and told.text is None
        one, two = told.reason.split("; asked again: ")
        assert told.attempts[0].reason == one and told.attempts[1].reason == two
    assert told.attempts[1].stage == "grounding" and told.attempts[1].parsed is not None
    assert told.attempts[1].parsed["summary"] == "Buy it now."


def test_a_cut_answer_was_asked_again_with_twice_the_room(asked: Shop) -> None:
    told = answer(asked, "b06")
    assert [a.stage for a in told.attempts] == ["cut", ""] and told.status == "repaired"
    assert told.attempts[0].finish_reason == "length" and "1024" in told.attempts[0].asked_again
    told = answer(asked, "b07")
    assert [a.stage for a in told.attempts] == ["cut", "cut"] and told.status == "quarantined"


def test_a_row_without_an_answer_says_why(asked: Shop) -> None:
    told = answer(asked, "b08")
    assert told.attempts == () and told.status == "no_answer" and "exceeds" in told.reason
    assert told.prompt.origin == "rendered" and told.prompt.messages


def test_another_revision_judges_no_old_answer(
    asked: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ItemSummary, "revision", 99)
    told = answer(asked, "b03")
    assert "item_summary-r99" in told.note and told.prompt.origin == "asked"
    first, second = told.attempts
    assert first.parsed is None and second.parsed is None
    assert "not valid JSON" in first.reason, "what the run noted is told all the same"


def test_other_declared_columns_are_said_and_nothing_is_judged(asked: Shop, tmp_path: Path) -> None:
    own = asked.copy(tmp_path / "home")
    toml = own.folder / "shop.toml"
    toml.write_text(toml.read_text().replace('description = "text"', 'description = "category"'))
    told = answer(own, "b03")
    assert "other columns are declared" in told.note and told.prompt.origin == "asked"
    assert told.attempts[0].parsed is None and told.attempts[0].reason
    toml.unlink()
    told = answer(own, "b03")
    assert "cannot be rendered again: no data set 'shop'" in told.note and told.text


def test_an_asset_that_is_not_loaded_is_traced_from_what_is_stored(asked: Shop) -> None:
    settings = asked.settings()
    plan = asked.plan(methods=tuple(m for m in settings.methods if m.recipe == "sasrec"))
    way = trace_row(Stored(settings, "shop", plan), SUMMARY, "b03")
    told = way.steps[-1].content
    assert isinstance(told, AnswerRow) and "not loaded by llmers.toml" in told.note
    assert told.status == "repaired" and len(told.attempts) == 2 and told.prompt.origin == "asked"


def test_what_was_pruned_is_named_and_the_rest_is_shown(asked: Shop, tmp_path: Path) -> None:
    import shutil

    own = asked.copy(tmp_path / "home")
    shutil.rmtree(own.home / "data/llmers/warehouse/shop/catalog/items")
    way = trace_row(stored(own), SUMMARY, "b03")
    items, summary = way.steps
    assert "were removed" in items.problem and items.content is None
    assert isinstance(summary.content, AnswerRow) and len(summary.content.attempts) == 2
    assert "cannot be rendered again" in summary.content.note


@pytest.mark.parametrize(
    ("row_id", "words"),
    [("b03", ("First raw answer", "could not be read", "asked again", "repaired")),
     ("b05", ("Buy it now.", "not grounded in the row", "quarantined", "no value is published")),
     ("b07", ("cut off", "ended by length")), ("b08", ("no_answer", "exceeds the context"))],
)  # fmt: skip
def test_the_page_tells_what_was_refused_and_why(
    asked: Shop, row_id: str, words: tuple[Any, ...]
) -> None:
    found = stored(asked)
    site = Site(found.settings, found.plan)
    browser = TestClient(create_app(site), base_url="http://127.0.0.1")
    text = browser.get(row_path("shop", SUMMARY, row_id)).text
    assert [word for word in words if word not in text] == []
