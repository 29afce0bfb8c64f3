from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from llmers_pipelines.data.description import Recorded
from llmers_pipelines.data.leakage import (
    LeakageError,
    Violation,
    prompt_violations,
    recorded_flags,
    title_violations,
)
from llmers_pipelines.data.training import HISTORY, TEST, TRAIN, VALID, IdMap, TrainingData


@pytest.fixture
def data():
    """u1: a history, b train, c valid, d test; u2: b train, a test."""
    return TrainingData(
        task="sequential", users=IdMap(("u1", "u2")), items=IdMap(("a", "b", "c", "d")),
        user=np.array([1, 1, 1, 1, 2, 2]), item=np.array([1, 2, 3, 4, 2, 1]),
        time=np.arange(6), split=np.array([HISTORY, TRAIN, VALID, TEST, TRAIN, TEST], np.int8),
        info={"split": "ctr", "options": {"column": "fold"}, "valid_from_train": 0.1},
    )  # fmt: skip


def test_prompts_may_show_training_and_history_rows_alone(data):
    assert prompt_violations(data, ["u1", "u1", "u2"], ["a", "b", "b"]) == []
    found = prompt_violations(
        data, ["u1", "u1", "u2", "u2", "u9", "u1", "u1"], ["c", "d", "a", "d", "a", "zz", "c"]
    )
    assert found == [
        Violation("u1", "c", "valid"), Violation("u1", "d", "test"), Violation("u2", "a", "test"),
        Violation("u2", "d", "absent"), Violation("u9", "a", "absent"),
        Violation("u1", "zz", "absent"),
    ]  # fmt: skip
    assert str(found[1]) == "user 'u1', item 'd' is a test row"


def test_history_only_prompts(data):
    found = prompt_violations(data, ["u1", "u1"], ["a", "b"], history_only=True)
    assert found == [Violation("u1", "b", "train")]


def test_a_pair_that_is_also_trained_is_allowed(data):
    again = dataclasses.replace(data, item=np.array([1, 2, 3, 2, 2, 1]))
    assert prompt_violations(again, ["u1"], ["b"]) == []


def test_test_titles_in_texts_are_found(data):
    titles = {"a": "Heat (1995)", "b": "Alien Nation", "c": "Up", "d": "The Long Goodbye (1973)"}
    texts = {
        "u1": "Likes Alien Nation and, above all, the long GOODBYE.",
        "u2": "Heat and dust; has seen The Long Goodbye",  # Heat is too short to tell
        "u9": "The Long Goodbye",
    }
    assert title_violations(data, texts, titles) == [Violation("u1", "d", "test")]
    titles["b"] = "The Long Goodbye"  # an item of the same name was read in training
    assert title_violations(data, texts, titles) == []
    assert title_violations(data, {"u1": "the long goodbyes"}, {"d": "The Long Goodbye"}) == []


def recorded(cutoff, labels_seen=False):
    return Recorded("user_preference", "v2", "p.parquet", "parquet", "user", "user_id", ("text",),
                    data_cutoff=cutoff, labels_seen=labels_seen)  # fmt: skip


def test_recorded_answers_must_fit_the_split(data):
    assert recorded_flags(recorded("none"), data) == ()
    assert recorded_flags(recorded("none", True), data) == ("labels_seen",)
    assert recorded_flags(recorded("fold", True), data) == ("labels_seen", "valid_seen")
    assert recorded_flags(recorded("ctr"), data) == ("valid_seen",)
    own_valid = dataclasses.replace(data, info=data.info | {"valid_from_train": 0.0})
    assert recorded_flags(recorded("ctr"), own_valid) == ()


@pytest.mark.parametrize(
    ("cutoff", "words"),
    [
        ("unknown", "not recorded which interactions"),
        ("all", "saw the whole log, test rows included"),
        ("u1_split", "training rows of 'u1_split'; use the split 'u1_split'"),
    ],
)
def test_recorded_answers_that_do_not_fit_are_refused_or_marked(data, cutoff, words):
    with pytest.raises(LeakageError) as fault:
        recorded_flags(recorded(cutoff), data)
    assert words in str(fault.value) and "user_preference.v2" in str(fault.value)
    flags = recorded_flags(recorded(cutoff, True), data, accept_contaminated=True)
    assert flags == ("labels_seen", "contaminated")


@pytest.mark.parametrize("cutoff", ["unknown", "all", "ctr"])
def test_answers_about_items_serve_every_split_and_may_have_seen_none(cutoff):
    assert recorded_flags(recorded("none"), None) == ()
    with pytest.raises(LeakageError, match="every split, as answers about items must"):
        recorded_flags(recorded(cutoff), None)
    marked = recorded_flags(recorded(cutoff, True), None, accept_contaminated=True)
    assert marked == ("labels_seen", "contaminated")
