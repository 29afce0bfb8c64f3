from __future__ import annotations

import math

import numpy as np
import pytest

from llmers_pipelines.evaluate.probes import alignment, retrieval, together, uniformity
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
