from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from llmers_pipelines.data.training import TEST, TRAIN, VALID, IdMap, TrainingData
from llmers_pipelines.derive.aspect_edges import ItemAspectEdges, ReviewAspectEdges
from llmers_pipelines.derive.reviews import (
    AspectVocabulary,
    ReviewQuestions,
    ReviewSamples,
    TrainingReviews,
    stem,
)

pytestmark = pytest.mark.proof("sagcn", "equations")

REVIEWS = pa.table({
    "user_id": ["u1", "u1", "u1", "u2", "u2", "u9", "u1"],
    "item_id": ["a", "b", "c", "a", "b", "a", "a"],
    "text": ["Cheap.", "Held out.", "Held out too.", "Runs small.", "  ", "Who?", "Still cheap."],
})  # fmt: skip


@pytest.fixture
def log():
    return TrainingData(
        "collaborative", IdMap(("u1", "u2")), IdMap(("a", "b", "c")),
        np.array([1, 1, 1, 2, 2]), np.array([1, 2, 3, 1, 2]), np.arange(5),
        np.array([TRAIN, VALID, TEST, TRAIN, TRAIN], np.int8),
    )  # fmt: skip


def answers(**columns):
    n = len(next(iter(columns.values())))
    return pa.table({**columns, "status": ["ok"] * n})


def test_reviews_of_held_out_rows_never_enter(log):
    table, info = TrainingReviews().apply([REVIEWS, log])
    assert table["review_id"].to_pylist() == ["u1/a", "u2/a", "u1/a/2"]
    assert "Held out." not in table["text"].to_pylist()
    assert info == {"reviews": 7, "kept": 3, "of_held_out_rows": 2}
    with pytest.raises(ValueError, match="needs a table with user_id, item_id, text"):
        TrainingReviews().apply([log])


def test_samples_hang_on_ids_and_say_whose_they_are(log):
    many = pa.table({
        "review_id": [f"r{n}" for n in range(60)], "user_id": ["u1"] * 60, "item_id": ["a"] * 60,
        "text": [f"text {n}" for n in range(60)],
    })  # fmt: skip
    table, info = ReviewSamples(samples=4, size=5).apply([many])
    assert info == {"samples": 4, "reviews": 20}
    again, _ = ReviewSamples(samples=4, size=5).apply([many.take(list(range(59, -1, -1)))])
    assert table.equals(again)
    told = [t for row in table["reviews"].to_pylist() for t in row]
    assert len(set(told)) == 20
    assert {len(r) for r in table["of_users"].to_pylist()} == {5}
    other, _ = ReviewSamples(samples=4, size=5, seed=1).apply([many])
    assert not table.equals(other)


def test_aspects_are_merged_and_the_most_frequent_kept():
    said = answers(aspects=[["Price", "durability"], ["prices", "plot"], ["a good plot"],
                            ["price of it", "stories"], ["story", "cost"], None])  # fmt: skip
    table, info = AspectVocabulary(keep=3).apply([said])
    rows = table.to_pylist()
    # price: rows 1, 2, 4; plot: 2, 3; story: 4, 5; durability and cost: one row each
    assert [(r["aspect"], r["stem"], r["count"]) for r in rows] == [
        ("price", "price", 3), ("plot", "plot", 2), ("stories", "story", 2),
    ]  # fmt: skip
    assert info["without_aspect"] == 2
    merged, _ = AspectVocabulary(keep=1, same=(("price", "cost"),)).apply([said])
    assert merged["count"].to_pylist() == [4]
    ignored, _ = AspectVocabulary(keep=1, ignore=("price", "prices")).apply([said])
    assert ignored["aspect"].to_pylist() == ["plot"]
    with pytest.raises(ValueError, match="phrases of 9 rows; lower `least`"):
        AspectVocabulary(least=9).apply([said])


def test_a_phrase_is_taken_by_the_most_frequent_aspect_first():
    """Once "acting" has its phrases, "strong cast" alone does not make "cast" an aspect twice."""
    said = answers(aspects=[["acting of the cast"], ["acting"], ["cast acting"], ["music"],
                            ["music"]])  # fmt: skip
    table, _ = AspectVocabulary(keep=5).apply([said])
    assert table["aspect"].to_pylist() == ["acting", "music"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [("stories", "story"), ("dresses", "dress"), ("prices", "price"), ("glass", "glass"),
     ("plus", "plus"), ("boxes", "box"), ("bus", "bus"), ("Sizes", "size")],
)  # fmt: skip
def test_stems(word, expected):
    assert stem(word) == expected


def test_every_edge_of_a_review_is_a_training_row(log):
    own, _ = TrainingReviews().apply([REVIEWS, log])
    asked, _ = ReviewQuestions().apply([own, pa.table({"aspect": ["price"], "stem": ["price"]})])
    assert asked["aspects"].to_pylist() == [["price"]] * 3
    said = answers(review_id=["u1/a", "u1/a/2", "u2/a"], aspects=[["price"], ["price"], None])
    table, info = ReviewAspectEdges().apply([log, asked, said])
    assert table.to_pylist() == [{"user_id": "u1", "item_id": "a", "aspect": "price"}]
    assert (info["pairs"], info["pairs_without"], info["no_training_row"]) == (1, 2, 0)
    held = own.append_column("aspects", pa.array([["price"]] * 3)).set_column(
        2, "item_id", pa.array(["a", "a", "c"])
    )
    table, info = ReviewAspectEdges().apply([log, held, said])
    assert info["no_training_row"] == 1 and table.num_rows == 1


def test_aspects_of_items_hold_for_their_training_rows_alone(log):
    said = answers(item_id=["a", "b", "c"], liked=[["low prices"], ["plot"], ["the plot"]],
                   disliked=[["its plot"], [], []])  # fmt: skip
    words = AspectVocabulary(keep=2)
    vocabulary, _ = words.apply([said])
    table, _ = ItemAspectEdges(words=words).apply([log, vocabulary, said])
    found = {tuple(r.values()) for r in table.to_pylist()}
    assert found == {("u1", "a", "plot"), ("u2", "a", "plot"), ("u2", "b", "plot")}


def test_an_unknown_source_of_aspects_is_refused():
    from llmers_pipelines.plan import PlanError
    from llmers_pipelines.recipes.knowledge.sagcn import sagcn

    with pytest.raises(PlanError, match="'item'; use 'items' or 'reviews'"):
        sagcn(source="item")
