from __future__ import annotations

import numpy as np
import pytest

from llmers_pipelines.models.exploration import below, explored, replaced

pytestmark = pytest.mark.proof("harec", "equations")

# paths in a tree of 2 layers; column 0 is padding
ITEMS = np.array([0, 0, 0, 1, 1, 2, 2, 3, 3], np.int32)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_candidates_share_the_ancestor_at_the_layer():
    assert below(1, ITEMS, 2, 2).tolist() == [3, 4]
    assert below(1, ITEMS, 2, 1).tolist() == [1, 2, 3, 4]
    assert below(1, ITEMS, 2, 0).tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    with pytest.raises(ValueError, match="layers 0 to 2"):
        below(1, ITEMS, 2, 3)


@pytest.mark.parametrize(
    ("k", "temperature", "count"),
    [(20, 0.0, 0), (20, 0.5, 10), (20, 0.04, 0), (100, 0.29, 29), (20, 1.0, 20)],
)
def test_how_many_places_are_explored(k, temperature, count):
    assert replaced(k, temperature) == count


def test_temperatures_outside_of_a_share_are_refused():
    with pytest.raises(ValueError, match="temperature"):
        replaced(10, 1.5)


def test_at_zero_the_list_stays_and_else_its_end_gives_way():
    ranked = np.array([8, 7, 6, 5])
    same, new = explored(ranked, np.arange(1, 5), ranked[:0], 0, rng())
    assert same.tolist() == ranked.tolist() and new == 0
    items, new = explored(ranked, np.arange(1, 9), np.array([1]), 2, rng())
    assert new == 2 and items[:2].tolist() == [8, 7]
    assert set(items[2:]) <= {2, 3, 4}  # neither seen (1) nor in the list


def test_seen_items_are_never_drawn_as_the_released_code_draws_them():
    seen = np.array([1, 2, 3])
    drawn = {i for s in range(50) for i in explored(np.array([8, 7]), np.arange(1, 7), seen, 2,
                                                    rng(s))[0]}  # fmt: skip
    assert drawn == {4, 5, 6}


def test_fewer_candidates_replace_fewer_places():
    items, new = explored(np.array([8, 7, 6]), np.array([6, 2]), np.array([9]), 3, rng())
    assert (items.tolist(), new) == ([8, 7, 2], 1)
    items, new = explored(np.array([8, 7, 6]), np.array([], int), np.array([9]), 3, rng())
    assert (items.tolist(), new) == ([8, 7, 6], 0)
