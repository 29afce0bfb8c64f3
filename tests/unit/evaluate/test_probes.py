from __future__ import annotations

import math

import numpy as np
import pytest

from llmers_pipelines.evaluate.probes import (
    alignment,
    attribute,
    regressed,
    retrieval,
    together,
    uniformity,
)
from llmers_pipelines.testing.planted import leave_one_out, planted_rings


@pytest.fixture(scope="module")
def planted():
    return planted_rings(n_users=150, n_items=40, seed=1)


def table(planted, rows=None):
    vectors = planted.items.vectors if rows is None else planted.items.vectors[rows]
    return np.concatenate([np.zeros((1, vectors.shape[1])), vectors])


def test_neighbours_in_text_hold_the_next_item_and_dealt_ones_do_not(planted):
    dealt = np.random.default_rng(0).permutation(planted.data.n_items)
    right, wrong = (
        retrieval(table(planted), planted.data),
        retrieval(table(planted, dealt), planted.data),
    )
    assert right > 0.8
    assert wrong == pytest.approx(10 / 32, abs=0.1)
    assert retrieval(np.ones((41, 3)), planted.data) == 0.0  # all tie in the middle


def test_cosines_go_with_what_users_have_together_and_dealt_ones_do_not(planted):
    dealt = np.random.default_rng(0).permutation(planted.data.n_items)
    assert together(table(planted), planted.data) > 0.4
    assert abs(together(table(planted, dealt), planted.data)) < 0.15


def test_alignment_and_uniformity_by_hand():
    one = np.array([[2.0, 0.0], [0.0, 1.0]])
    assert alignment(one, one * 3) == pytest.approx(0.0)
    assert alignment(one, one[::-1]) == pytest.approx(2.0)
    assert uniformity(one) == pytest.approx(-4.0)  # one pair, |x - y|^2 = 2
    three = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    expected = math.log((math.exp(-8) + 2 * math.exp(-4)) / 3)
    assert uniformity(three) == pytest.approx(expected)


def test_seen_items_are_no_neighbours():
    data = leave_one_out([np.array([1, 2, 3, 4])], 5)
    line = np.array([[0, 0], [1, 0], [1, 0.1], [1, 0.2], [1, 0.3], [-1, 0]])
    # after 3, the items 2 and 1 are near and were seen; 4 is the nearest of the others
    assert retrieval(line, data, k=1) == 1.0


def test_a_category_is_read_off_vectors_that_hold_it_and_off_dealt_ones_not(planted):
    group = [None, *(f"g{g}" for g in planted.group[1:])]
    right = attribute(table(planted), group)
    dealt = np.random.default_rng(0).permutation(planted.data.n_items)
    wrong = attribute(table(planted, dealt), group)
    assert right is not None and wrong is not None and right[1] == wrong[1]
    assert right[0] > 0.9 > right[1] and wrong[0] < right[1] + 0.25


def test_rare_values_and_rows_without_one_take_no_part():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(41, 3))
    values = [None, *["a"] * 20, *["b"] * 16, *["c"] * 4]
    x[1:21, 0] += 9
    found = attribute(x, values)
    assert found == (1.0, pytest.approx(20 / 36)), "four rows of c are too few for five folds"
    assert attribute(x, [None] * 41) is None and attribute(x, ["a"] * 41) is None


def test_the_regression_is_that_of_another_library():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(2)
    x, label = rng.normal(size=(90, 4)), rng.integers(0, 3, 90)
    x[:, 1] += label
    theirs = LogisticRegression(C=1.0, tol=1e-8, max_iter=2000).fit(x, label)
    ours = regressed(x, label, 3)
    said = x @ ours[:-1] + ours[-1]
    p = np.exp(said - np.logaddexp.reduce(said, axis=1, keepdims=True))
    np.testing.assert_allclose(p, theirs.predict_proba(x), atol=1e-3)
