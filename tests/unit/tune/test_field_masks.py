"""Which fields are masked: at least one, and what would tell a masked value."""

from __future__ import annotations

import numpy as np
import pytest

from llmers_pipelines.tune.field_masks import closed, drawn_fields, leaks

pytestmark = pytest.mark.proof("flip", "equations")


@pytest.mark.parametrize("fields", range(1, 8))
def test_at_least_one_field_is_masked(fields: int) -> None:
    """``int(F ratio)`` is 0 below seven fields; a row must have one masked all the same."""
    rng = np.random.default_rng(fields)
    present = np.ones((200, fields), bool)
    assert (drawn_fields(present, 0.15, rng.random(present.shape)).sum(1) == 1).all()


def test_a_share_of_the_present_fields() -> None:
    rng = np.random.default_rng(0)
    present = rng.random((300, 20)) < 0.8
    present[0] = False
    chosen = drawn_fields(present, 0.3, rng.random(present.shape))
    n = present.sum(1)
    wanted = np.where(n, np.maximum(1, np.floor(n * 0.3 + 1e-9)), 0)
    np.testing.assert_array_equal(chosen.sum(1), wanted)
    assert not (chosen & ~present).any()
    often = drawn_fields(np.ones((4000, 4), bool), 0.25, rng.random((4000, 4))).mean(0)
    np.testing.assert_allclose(often, 0.25, atol=0.03)


def test_the_lowest_draws_are_taken() -> None:
    draws = np.array([[0.4, 0.1, 0.9, 0.2]])
    found = drawn_fields(np.array([[True, False, True, True]]), 0.7, draws)
    assert found.tolist() == [[True, False, False, True]]


def shut(masked: int, values: list[str], parts: list[list[str]]) -> list[int]:
    chosen = np.arange(len(values)) == masked
    return np.flatnonzero(closed(chosen, leaks(values, parts))).tolist()


def test_a_field_that_tells_a_masked_value_is_masked_as_well() -> None:
    """And one whose own value stands in the masked one: it tells a part of it."""
    told = ["Heat", "1995", "Casino (1995), Heat", "M"]
    parts = [["Heat"], ["1995"], ["Casino (1995)", "Heat"], ["M"]]
    wanted = np.zeros((4, 4), bool)
    wanted[[0, 1, 2, 2], [2, 2, 0, 1]] = True
    np.testing.assert_array_equal(leaks(told, parts), wanted)
    assert shut(3, told, parts) == [3]
    assert [shut(f, told, parts) for f in range(3)] == [[0, 1, 2]] * 3


@pytest.mark.parametrize("title", ["Alien", "Star Wars", "Heat"])
def test_a_title_of_a_masked_history_is_not_told_elsewhere(title: str) -> None:
    told, parts = ["u1", title, "Alien, Star Wars, Heat"], [["u1"], [title]]
    assert shut(2, told, [*parts, ["Alien", "Star Wars", "Heat"]]) == [1, 2]


def test_a_value_of_a_masked_list_is_not_told_elsewhere() -> None:
    """Neither list stands whole in the other; a title with a comma is one part."""
    told = ["Action, Comedy", "Comedy, Drama", "Drama, Action", "Noir"]
    assert shut(0, told[:2], [["Action", "Comedy"], ["Comedy", "Drama"]]) == [0, 1]
    assert shut(0, ["Action, Comedy", "Noir"], [["Action", "Comedy"], ["Noir"]]) == [0]
    assert shut(1, told, [["Action", "Comedy"], ["Comedy", "Drama"], ["Drama", "Action"],
                          ["Noir"]]) == [0, 1, 2]  # fmt: skip
    titles = ["Ring, The", "Thing, The"]
    assert shut(0, titles, [[t] for t in titles]) == [0]


def test_masking_goes_on_until_nothing_is_told() -> None:
    told = ["a", "a b", "x a b", "z"]
    assert shut(0, told, [[v] for v in told]) == [0, 1, 2]
