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


def test_a_field_that_tells_a_masked_value_is_masked_as_well() -> None:
    told = leaks(["Heat", "1995", "Casino (1995), Heat", "M"])
    assert told.tolist() == [
        [False, False, True, False], [False, False, True, False],
        [False, False, False, False], [False, False, False, False],
    ]  # fmt: skip
    assert closed(np.array([True, False, False, False]), told).tolist() == [
        True,
        False,
        True,
        False,
    ]
    assert closed(np.array([False, False, True, False]), told).tolist() == [
        False,
        False,
        True,
        False,
    ]


def test_masking_goes_on_until_nothing_is_told() -> None:
    told = leaks(["a", "a b", "x a b", "z"])
    assert closed(np.array([True, False, False, False]), told).tolist() == [True, True, True, False]
