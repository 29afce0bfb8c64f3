"""What the logs of some tasks have beside the others: scenarios, impressions, words."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_splits import T0, build

from llmers_pipelines.data.codes import coded_by_entity
from llmers_pipelines.data.schema import DataError
from llmers_pipelines.data.training import TRAIN, Field, TrainingData

SHOWN = "user_id,item_id,timestamp,clicked,page,shown"
SHOWN_ROWS = [
    ("u", "a", T0, 1, "home", "x1"), ("u", "b", T0, 0, "home", "x1"),
    ("u", "c", T0 + 9, 1, "search", "x2"), ("w", "a", T0 + 1, 0, "", "x3"),
    ("w", "b", T0 + 9, 1, "mail", "x4"), ("w", "c", T0 + 10, 0, "home", ""),
]  # fmt: skip
BY_TIME = {
    "protocol": "time", "label": "clicked == 1", "valid_from": str(T0 + 5),
    "test_from": str(T0 + 10),
}  # fmt: skip


def test_scenarios_are_coded_by_what_training_has_seen(make, tmp_path):
    rows = [*SHOWN_ROWS, ("u", "b", T0 + 2, 1, "search", "x5")]
    split = {**BY_TIME, "scenario": "page"}
    data = build(make, rows, split, task="multi_scenario", columns=SHOWN)
    assert data.task == "multi_scenario"
    assert data.scenario.vocabulary == ("home", "search"), "'mail' is of a later moment"
    assert data.scenario.codes.tolist() == [1, 1, 2, 2, 0, 0, 1]
    assert data.info["scenarios"] == {"unknown": 2, "home": 3, "search": 2}
    assert data.label.tolist() == [1, 0, 1, 1, 0, 1, 0]
    data.save(tmp_path)
    again = TrainingData.load(tmp_path)
    assert again.content_hash() == data.content_hash()
    assert again.scenario.vocabulary == data.scenario.vocabulary
    other = dataclasses.replace(data, scenario=dataclasses.replace(
        data.scenario, codes=data.scenario.codes[::-1]
    ))  # fmt: skip
    assert other.content_hash() != data.content_hash()


def test_a_category_of_items_may_be_the_scenario():
    field = Field(np.array([0, 3, 1, 1, 2, 0], np.int32), ("crime", "sea", "war"))
    item = np.array([1, 2, 4, 3, 5, 1])
    known = np.array([True, True, False, False, True, False])
    found = coded_by_entity({"genre": field}, "item.genre", item, known, "split 'x'")
    assert found.vocabulary == ("crime", "war"), "'sea' is of a later moment"
    assert found.codes.tolist() == [2, 1, 0, 1, 0, 2]
    with pytest.raises(DataError, match=r"split 'x' reads 'user\.genre'.*they have: age"):
        coded_by_entity({"age": field}, "user.genre", item, known, "split 'x'")


def test_a_split_reads_the_scenario_of_its_items(make):
    split = {**BY_TIME, "scenario": "item.kind"}
    items = "item_id,title,kind\na,A,sea|calm\nb,B,crime\nc,C,war\n"
    declared = {"fields": {"kind": {"kind": "category", "separator": "|"}}}
    data = build(make, SHOWN_ROWS, split, task="multi_scenario", columns=SHOWN, items=items,
                 items_toml=declared)  # fmt: skip
    assert data.scenario.vocabulary == ("crime", "sea"), "the first of several; 'c' comes later"
    kinds = {"a": 2, "b": 1, "c": 0}
    assert data.scenario.codes.tolist() == [kinds[data.items.ids[i - 1]] for i in data.item]
    with pytest.raises(DataError, match=r"items declare no category 'genre'.*they have: kind"):
        build(make, SHOWN_ROWS, {**split, "scenario": "item.genre"}, task="multi_scenario",
              columns=SHOWN, items=items, items_toml=declared)  # fmt: skip


def test_titles_are_words_of_which_training_items_give_the_vocabulary(make, tmp_path):
    data = build(make, SHOWN_ROWS, BY_TIME, task="news", columns=SHOWN)
    title = data.item_texts["title"]
    met = {data.items.ids[i - 1] for i in data.item[data.split == TRAIN]}
    assert met == {"a", "b"}
    for item, codes in zip(data.items.ids, title.codes[1:], strict=True):
        words = [title.vocabulary[c - 1] for c in codes if c]
        assert words
        assert ("" in words) == (item not in met), (item, words)
    data.save(tmp_path)
    again = TrainingData.load(tmp_path)
    assert again.content_hash() == data.content_hash()
    assert np.array_equal(again.item_texts["title"].codes, title.codes)


def test_impressions_are_rows_that_were_shown_together(make, tmp_path):
    split = {**BY_TIME, "impression": "shown"}
    data = build(make, SHOWN_ROWS, split, task="news", columns=SHOWN)
    first, again, second, third, fourth, none = data.impression.tolist()
    assert first == again
    assert none == 0
    assert len({first, second, third, fourth, none}) == 5
    data.save(tmp_path)
    assert np.array_equal(TrainingData.load(tmp_path).impression, data.impression)


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("multi_scenario", {}, "scenario"),
        ("multi_scenario", {"scenario": "place"}, "'place', which the interactions lack"),
        ("multi_scenario", {"scenario": "page", "label": ""}, "a multi_scenario split needs one"),
        ("ctr", {"scenario": "page"}, "is for multi_scenario splits, not for 'ctr'"),
        ("ctr", {"impression": "shown"}, "is for news splits, not for 'ctr'"),
    ],
)
def test_options_of_click_tasks_are_checked(make, task, change, message):
    with pytest.raises(DataError, match=message):
        build(make, SHOWN_ROWS, {**BY_TIME, **change}, task=task, columns=SHOWN)
