"""Whose answers and which speed an estimate stands on: said, and preferred in order."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from test_plans import LINE, NODE, of, settings, write

from llmers_pipelines.cli.plan_table import _between, _time_source
from llmers_pipelines.llm.history import Answered
from llmers_pipelines.llm.survey import Paid
from llmers_pipelines.orchestrate import forecast as forecasts
from llmers_pipelines.orchestrate.estimate import plain
from llmers_pipelines.orchestrate.measured import speed
from llmers_pipelines.prices import Price

REVISION = NODE.task.prompt_revision
SAME_IDS = frozenset(str(i) for i in range(60))
MINE = Answered("weights:w", "hf", "m@1", REVISION, SAME_IDS)
OTHERS = Answered("weights:x", "hf", "big", REVISION, SAME_IDS)


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Paid]]:
    """Return what the stored answers of each model cost: 10 tokens each, or 70."""
    found = {"weights:w": [Paid(100, 9), Paid(100, 11)] * 30, "weights:x": [Paid(100, 70)] * 60}
    monkeypatch.setattr(forecasts, "costs", lambda store, *, identity, **_: found[identity])
    return found


def bill(where, *groups: Answered):
    forecast = of(where, (), 60)
    forecast.__dict__["groups"] = list(groups)
    return forecast.bill()


def priced(home: Path):
    return settings(home, prices={"m": Price(input=2.0, output=10.0)})


def test_answers_of_another_data_set_have_no_interval_and_say_so(tmp_path: Path, cost) -> None:
    where = priced(tmp_path)
    write(where, dataclasses.replace(LINE, dataset="elsewhere"))
    told = bill(where, MINE)
    assert told.tokens_out.value == 600 and told.tokens_out.source == "another data set"
    for figure in (told.repairs, told.calls, told.tokens_in, told.tokens_out, told.money):
        assert (figure.low, figure.high) == (None, None), figure
        assert _between(plain(figure)) == ""
    assert "run with --pilot" in told.tokens_out.detail
    assert "another data set" in told.notes[0] and "--pilot" in told.notes[0]


def test_answers_of_the_same_data_set_keep_their_interval(tmp_path: Path, cost) -> None:
    where = priced(tmp_path)
    write(where, LINE)
    told = bill(where, MINE)
    assert told.tokens_out.source == "earlier answers" and told.notes == ()
    assert told.tokens_out.low < 600 < told.tokens_out.high and told.money.low is not None
    # Equal ids prove nothing once the same was asked of two data sets.
    write(where, LINE, dataclasses.replace(LINE, dataset="elsewhere"))
    assert bill(where, MINE).tokens_out.source == "another data set"


def test_answers_to_unknown_rows_are_those_of_another_data_set(tmp_path: Path, cost) -> None:
    far = dataclasses.replace(MINE, rows=frozenset(f"x{i}" for i in range(60)))
    assert bill(priced(tmp_path), far).tokens_out.source == "another data set"
    assert bill(priced(tmp_path), MINE).tokens_out.source == "earlier answers", "carried here"


def test_the_data_set_comes_before_the_model(tmp_path: Path, cost) -> None:
    where = priced(tmp_path)
    here = dataclasses.replace(LINE, identity="weights:x")
    write(where, here, dataclasses.replace(LINE, dataset="elsewhere"))
    told = bill(where, MINE, OTHERS)
    assert told.tokens_out.value == 60 * 70 and "by another model, big" in told.tokens_out.detail
    write(where, here, LINE)
    assert bill(where, MINE, OTHERS).tokens_out.value == 600, "of two of this data set, the model's"


def test_loading_a_model_is_counted_once(tmp_path: Path) -> None:
    where = settings(tmp_path)
    write(where, dataclasses.replace(LINE, loading=2.0))  # 1,000 tokens in the other 2 s
    told = of(where, (Paid(100, 10),) * 30, 10).bill()  # 1,100 tokens
    assert told.seconds.value == pytest.approx(1100 / 500 + 2.0)
    assert "500 tokens/s" in told.seconds.detail and "2.0 s to load" in told.seconds.detail
    assert "another load of the machine" in _time_source(plain(told.seconds))
    assert of(where, (Paid(100, 10),) * 30, 0).bill().seconds.value == 0


def test_the_newest_runs_tell_the_speed_and_choices_have_their_own() -> None:
    asked = {"engine": "hf", "identity": "weights:w"}
    slow = dataclasses.replace(LINE, seconds=40.0)
    found = speed([slow, LINE, LINE, LINE], **asked, prompt_revision=REVISION)
    assert found is not None and found.tokens_per_second == 250
    choices = dataclasses.replace(LINE, prompt_revision="next", tokens_out=0, seconds=0.5)
    found = speed([LINE, choices], **asked, prompt_revision="new")
    assert found is not None and found.tokens_per_second == 250, "another prompt's writing"
    found = speed([LINE, choices], **asked, prompt_revision="new", writes=False)
    assert found is not None and found.tokens_per_second == 1600
    assert speed([LINE], **asked, prompt_revision="new", writes=False) is None
