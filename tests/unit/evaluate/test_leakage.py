from __future__ import annotations

import pytest

from llmers_pipelines.data.training import TEST, TRAIN, VALID
from llmers_pipelines.evaluate.leakage import leaked_targets, plain

TITLES = {
    "i1": "Toy Story (1995)", "i2": "Amélie (2001)", "i3": "Matrix, The (1999)",
    "i4": "Heat (1995)", "i5": "It (1990)", "i6": "Toy Story 2 (1999)",
}  # fmt: skip


@pytest.fixture
def data(make_log):
    rows = [(1, 1, TRAIN), (1, 2, VALID), (1, 3, TEST), (2, 6, TRAIN), (2, 1, VALID), (2, 5, TEST),
            (3, 2, TRAIN), (3, 1, VALID), (3, 4, TEST)]  # fmt: skip
    return make_log(rows, 3, 6)


def test_a_planted_target_is_found(data):
    texts = {
        "u1": "Enjoys TOY STORY; next would be the matrix, then Amelie!",
        "u3": "Likes heat-seeking dramas and Amélie.",
    }
    found = leaked_targets(texts, TITLES, data).to_pylist()
    assert {(r["user_id"], r["item_id"], r["split"]) for r in found} == {
        ("u1", "i3", "test"), ("u1", "i2", "valid"), ("u3", "i4", "test"),
    }  # fmt: skip
    assert {r["title"] for r in found} >= {"Matrix, The (1999)"}


def test_only_the_asked_splits_are_searched(data):
    found = leaked_targets({"u1": "the matrix and amelie"}, TITLES, data, splits=(TEST,))
    assert found["item_id"].to_pylist() == ["i3"]


def test_clean_texts_train_titles_and_other_users_targets_are_no_leak(data):
    texts = {"u1": "Enjoys Toy Story and crime films.", "u2": "Liked it.", "u3": "The Matrix fan."}
    assert leaked_targets(texts, TITLES, data).num_rows == 0


def test_a_title_inside_a_known_title_is_no_evidence(data):
    assert leaked_targets({"u2": "Loved Toy Story 2 (1999)"}, TITLES, data).num_rows == 0


def test_missing_texts_and_titles_are_skipped(data):
    assert leaked_targets({"u1": None}, {}, data).num_rows == 0
    assert leaked_targets({}, TITLES, data).column_names == ["user_id", "item_id", "title", "split"]


def test_plain_text():
    assert plain("Léon: The Professional (1994)") == "leon the professional"
    assert plain("Bug's Life, A (1998)") == "a bug s life"
