from __future__ import annotations

import json

import pytest

from llmers_pipelines.prompts.reasoning import ChainReasoning, ExtendChains, FillStep, ScoreChains

pytestmark = pytest.mark.proof("llmrg", "equations")

ROW = {"user_id": "u1", "items": ["a", "b", "c"], "titles": ["Alpha", "Beta", "Gamma"],
       "asked": ["b", "c"], "chains": ["Alpha -> (sea) Beta </chains>"]}  # fmt: skip
STEP = {"step_id": "a>b", "after_title": "Alpha", "item_title": "Beta", "reason": "both at sea"}


def steps(*given):
    return json.dumps({"steps": [{"item": i, "after": a, "reason": r} for i, a, r in given]})


def test_numbers_become_items_and_impossible_steps_are_left_out():
    task = ChainReasoning()
    value = task.parse(steps((2, 1, "the sea"), (3, 3, "itself"), (3, 0, "new"), (1, 0, "x"),
                             (2, 0, "again"))).value  # fmt: skip
    assert task.ground(value, ROW) == []
    assert task.resolved(value, ROW) == {"items": ["b", "c"], "after": ["a", ""],
                                         "reasons": ["the sea", ""]}  # fmt: skip
    none = task.parse(steps((3, 3, "itself"))).value
    assert "no step leads" in task.ground(none, ROW)[0]


def test_the_schema_allows_the_numbers_that_are_asked_about():
    fields = ChainReasoning().row_schema(ROW)["properties"]["steps"]
    assert fields["items"]["properties"]["item"] == {"enum": [2, 3]}
    assert fields["items"]["properties"]["after"] == {"enum": [0, 1, 2]} and fields["maxItems"] == 2


def test_what_is_told_stands_in_fences():
    system, user = ChainReasoning().render(ROW)
    assert user["content"].count("</chains>") == 1 and "Numbers to explain: 2, 3" in user["content"]
    assert "</history>, and between <chains> and </chains>," in system["content"]
    assert "{" not in system["content"].replace('{"steps": [{"item"', "")
    assert ChainReasoning().pairs(ROW) == [("u1", "a"), ("u1", "b"), ("u1", "c")]
    assert ChainReasoning().unaskable({**ROW, "asked": []}) == "there is nothing to explain"


def test_the_mask_hides_the_end_of_the_step_and_tells_of_nobody():
    task = FillStep()
    content = task.render(STEP)[1]["content"]
    assert "Beta" not in content and "Alpha" in content and "[hidden]" in content
    assert task.pairs(STEP) == [] and task.template(STEP) == {"text": "Beta"}
    assert task.unaskable({**STEP, "reason": ""}) != ""


def test_one_score_per_chain():
    task, row = ScoreChains(), {**ROW, "chains": ["A", "B"]}
    schema = task.row_schema(row)["properties"]["scores"]
    assert (schema["minItems"], schema["maxItems"]) == (2, 2)
    assert task.ground({"scores": [7]}, row) == ["2 chains are to be scored, the answer has 1 "
                                                 "numbers"]  # fmt: skip
    assert task.parse('{"scores": [11]}').status == "invalid"
    assert task.template(row) == {"scores": [10, 10]}


def test_the_control_imagines_nothing_new():
    assert ExtendChains().template(ROW) == {"imagined": ["Gamma"]}
    assert ExtendChains().ground({"imagined": ["..."]}, ROW) == ["the answer names no title"]
    assert "at most 5" in ExtendChains().render(ROW)[0]["content"].lower()
