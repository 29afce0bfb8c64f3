from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from llmers_pipelines.data.training import TEST, TRAIN, VALID
from llmers_pipelines.evaluate import beyond
from llmers_pipelines.evaluate.predict import TopK, top_k_lists


@pytest.mark.parametrize(
    ("counts", "expected"), [((1, 1, 1, 1), 0.0), ((0, 0, 0, 4), 0.75), ((0, 1, 1, 2), 0.375)]
)
def test_golden_gini(counts, expected):
    assert beyond.gini(np.array(counts)) == pytest.approx(expected)
    assert beyond.gini(np.array(counts[::-1])) == pytest.approx(expected)


def test_golden_novelty_in_bits():
    smoothed = beyond.self_information(np.array([7, 3, 1, 0, 0]))
    assert smoothed.tolist() == pytest.approx([1, 2, 3, 4, 4])
    counts = np.array([0, 8, 4, 2, 1, 1])
    assert beyond.novelty(np.array([[1, 4], [2, 0]]), counts, 0.0) == pytest.approx((1 + 4 + 2) / 3)


def test_golden_calibration():
    value = beyond.calibration(np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    assert value == pytest.approx(1.9585, abs=1e-4)
    assert beyond.calibration(np.array([1.0, 0.0]), np.array([1.0, 0.0])) == pytest.approx(0.0)


def test_coverage_exposure_and_entropy_leave_padding_out():
    items = np.array([[1, 2], [1, 0]])
    assert beyond.exposure(items, 4).tolist() == [2, 1, 0, 0]
    assert beyond.coverage(items, 4) == 0.5
    assert beyond.shannon(np.array([1, 1, 1, 1, 0])) == pytest.approx(2.0)


def test_popularity_of_lists():
    counts = np.array([0, 10, 4, 1])
    items = np.array([[1, 3], [2, 0]])
    assert beyond.arp(items, counts) == pytest.approx(5.0)
    assert beyond.aplt(items, np.array([False, False, True, True])) == pytest.approx(2 / 3)


def test_intra_list_distance_ignores_padding_and_short_lists():
    vectors = np.array([[0, 0], [1, 0], [0, 2], [3, 0], [0, 0]], float)
    lists = np.array([[1, 2, 3], [1, 3, 0], [2, 0, 0]])
    first = (1 + 0 + 1) / 3  # cos 0, 1, 0
    assert beyond.intra_list_distance(lists, vectors) == pytest.approx((first + 0) / 2)
    assert beyond.intra_list_distance(np.array([[1, 4]]), vectors) == pytest.approx(1.0)
    assert beyond.intra_list_distance(np.array([[1, 0]]), vectors) is None


def test_category_shares_split_items_with_several_categories():
    member = np.array([[1, 1], [1, 0], [1, 1], [0, 0]])
    shares = beyond.category_shares(np.array([[1, 2], [3, 0]]), member)
    assert shares.tolist() == [[0.75, 0.25], [0.0, 0.0]]


def test_stability_is_the_jaccard_overlap():
    a = TopK(np.array([1, 2]), np.array([[1, 2], [3, 4]]))
    b = TopK(np.array([1, 2]), np.array([[2, 1], [4, 5]]))
    assert beyond.stability(a, b) == pytest.approx((1 + 1 / 3) / 2)
    with pytest.raises(ValueError, match="different users"):
        beyond.stability(a, TopK(np.array([1, 3]), b.items))


def test_a_popularity_model_has_low_coverage_and_lift_above_one(make_log, fixed):
    rng = np.random.default_rng(0)
    rows = []
    for u in range(1, 61):
        weight = 1 / np.arange(1, 31)
        items = rng.choice(30, 6, replace=False, p=weight / weight.sum()) + 1
        rows += [(u, int(i), TRAIN) for i in items[:5]] + [(u, int(items[5]), TEST)]
    data = make_log(rows, 60, 30)
    popular = np.tile(data.train_counts, (61, 1))
    uniform = rng.standard_normal((61, 31))
    a = beyond.summary(top_k_lists(fixed(popular), data, 5), data)
    b = beyond.summary(top_k_lists(fixed(uniform), data, 5), data)
    assert a["coverage"] < b["coverage"] and a["gini"] > b["gini"]
    assert a["novelty"] < b["novelty"] and a["aplt"] < b["aplt"]
    assert a["popularity_lift"] > b["popularity_lift"]


def test_empty_lists_give_none():
    none = np.zeros((2, 3), np.int64)
    counts = np.array([0, 1])
    assert beyond.gini(beyond.exposure(none, 1)) is None and beyond.novelty(none, counts) is None
    assert beyond.shannon(beyond.exposure(none, 1)) is None


def test_serendipity_counts_hits_that_the_usual_list_lacks():
    users = np.array([1, 2, 3, 4])
    own = TopK(users, np.array([[1, 2], [3, 4], [5, 6], [7, 0]]))
    usual = TopK(users, np.array([[1, 9], [1, 2], [1, 2], [1, 2]]))
    # user 1's hit is usual, user 3 has none, user 4 no target
    targets = np.array([1, 2, 3]), np.array([1, 4, 8])
    assert beyond.serendipity(own, usual, *targets) == pytest.approx(1 / 3)
    assert beyond.serendipity(own, own, *targets) == 0.0
    assert beyond.serendipity(own, usual, users[:0], users[:0]) is None
    with pytest.raises(ValueError, match="different users"):
        beyond.serendipity(own, TopK(users[::-1], usual.items), *targets)


def test_overlaps_of_many_lists_are_those_of_sets():
    """Random lists, some shorter than others and some empty; targets of a part of the users."""
    rng = np.random.default_rng(0)
    users = np.arange(2, 402, 2)
    a, b = (
        TopK(users, rng.permuted(np.tile(np.arange(30), (200, 1)), axis=1)[:, :6] * keep)
        for keep in (rng.random((2, 200, 6)) < rng.choice([0, 0.5, 1], (2, 200, 1)))
    )
    user, item = rng.integers(1, 350, 500), rng.integers(1, 40, 500)  # some pairs twice
    sets = [[set(row[row > 0].tolist()) for row in top.items] for top in (a, b)]
    wanted = {u: set(item[user == u].tolist()) for u in set(user.tolist())}
    new = [bool((x - y) & wanted[u]) for u, x, y in zip(users, *sets, strict=True) if u in wanted]
    shared = [len(x & y) / len(x | y) for x, y in zip(*sets, strict=True) if x | y]
    assert 0 < sum(new) < len(new) < len(users) and len(shared) < len(users)
    assert beyond.serendipity(a, b, user, item) == np.mean(new)
    assert beyond.stability(a, b) == np.mean(shared)
    none = TopK(users, np.zeros((200, 6), np.int64))
    assert beyond.stability(none, none) is None


def test_category_entropy_of_lists_in_bits():
    membership = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [0, 0]])
    lists = np.array([[1, 2], [1, 1], [3, 3], [4, 0]])  # half and half, one, split items, none
    assert beyond.category_entropy(lists, membership) == pytest.approx((1 + 0 + 1) / 3)
    assert beyond.category_entropy(lists[3:], membership) is None


def test_a_gap_is_a_difference_and_a_ratio():
    assert beyond.gap([0.2, 0.1, None]) == (pytest.approx(0.1), 0.5)
    assert beyond.gap([0.0, 0.0]) == (0.0, None)
    assert beyond.gap([0.3, None]) == (None, None)


def test_lists_are_held_against_the_categories_of_the_history(make_log):
    """User 1 met x and x, user 2 only an item without a category; item 3 is of both, 4 of none."""
    rows = [(1, 1, TRAIN), (1, 5, VALID), (1, 2, TEST), (2, 4, TRAIN), (2, 1, TEST)]
    data = make_log(rows, 2, 5)
    membership = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [0, 0], [1, 0]], bool)
    assert beyond.history_shares(data, membership).tolist() == [[0, 0], [1, 0], [0, 0]]
    top = TopK(np.array([1, 2]), np.array([[1, 2, 0], [3, 4, 0]]))
    found = beyond.category_summary(top, membership, data)
    # list 1: orthogonal; list 2: the item without a category is at distance 1
    assert found["category_distance"] == pytest.approx(1.0)
    assert found["category_entropy"] == pytest.approx((1 + 1) / 2)  # half and half, and item 3
    wanted = beyond.calibration(np.array([1.0, 0.0]), np.array([0.5, 0.5]))
    assert found["calibration"] == pytest.approx(float(wanted))  # of user 1: 2 has no taste
    none = beyond.category_summary(TopK(np.array([1]), np.array([[4, 0]])), membership, data)
    assert none == {"category_distance": None, "category_entropy": None, "calibration": None}


def test_distances_of_lists_do_not_hold_all_vectors_at_once():
    rng = np.random.default_rng(0)
    lists, vectors = rng.integers(0, 301, (4000, 10)), rng.standard_normal((301, 64))
    tracemalloc.start()
    found = beyond.intra_list_distance(lists, vectors)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4000 * 64 * 8 * 5, "a few matrices of one row per list, none of ten"
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    means = []
    for row in lists:
        real = unit[row[row > 0]]
        cos, n = real @ real.T, len(real)
        if n > 1:
            means.append(1 - (cos.sum() - np.trace(cos)) / (n * (n - 1)))
    assert found == pytest.approx(np.mean(means))
