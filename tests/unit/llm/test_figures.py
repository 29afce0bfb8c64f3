"""Totals of samples and predictions, against cases worked by hand and simulation."""

from __future__ import annotations

import itertools
import math
import random
from statistics import fmean

import pytest

from llmers_pipelines.llm.figures import (
    NOTHING,
    UNKNOWN,
    Figure,
    added,
    predicted_total,
    strata,
    stratified_total,
)


def test_a_stratified_total_by_hand() -> None:
    # N = 10, mean 3, s^2 = 2, n = 2; N = 4, seen whole.
    # total 10 * 3 + (1 + 2 + 3 + 6) = 42; variance 10^2 (1 - 2/10) 2 / 2 = 80.
    total, error = stratified_total([(10, [2.0, 4.0]), (4, [1.0, 2.0, 3.0, 6.0])])
    assert total == 42 and error == pytest.approx(math.sqrt(80))
    with pytest.raises(ValueError, match="without a value"):
        stratified_total([(3, [])])


def test_few_units_are_all_looked_at() -> None:
    (one,) = strata([5, 1, 3], 3)
    assert one.size == 3 and sorted(one.chosen) == [0, 1, 2]
    assert stratified_total([(3, [5.0, 1.0, 3.0])]) == (9.0, 0.0)
    assert strata([], 10) == []


def test_strata_hold_units_of_near_size_and_share_the_sample() -> None:
    rng = random.Random(1)
    sizes = [rng.lognormvariate(5, 1) for _ in range(3017)]
    parts = strata(sizes, 400, seed=3)
    assert sum(p.size for p in parts) == len(sizes)
    assert sum(len(p.chosen) for p in parts) == 400 and len(parts) == 20
    chosen = [i for p in parts for i in p.chosen]
    assert len(set(chosen)) == 400
    for low, high in itertools.pairwise(parts):
        assert max(sizes[i] for i in low.chosen) <= min(sizes[i] for i in high.chosen)
    assert strata(sizes, 400, seed=3) == parts and strata(sizes, 400, seed=4) != parts


def test_the_standard_error_is_that_of_repeated_samples() -> None:
    rng = random.Random(2)
    sizes = [rng.lognormvariate(5, 1) for _ in range(2000)]
    values = [s / 4 + rng.gauss(0, 10) for s in sizes]
    runs = [
        stratified_total([(p.size, [values[i] for i in p.chosen]) for p in strata(sizes, 200, n)])
        for n in range(300)
    ]
    totals = [total for total, _ in runs]
    spread = math.sqrt(fmean((t - sum(values)) ** 2 for t in totals))
    assert fmean(totals) == pytest.approx(sum(values), rel=0.01)
    assert fmean(error for _, error in runs) == pytest.approx(spread, rel=0.25)


def test_a_prediction_by_hand() -> None:
    # mean 4, s^2 = 4, n = 3, t(0.95, 2) = 2.919986: 30 -+ 2.92 * 2 * sqrt(6 + 36 / 3)
    total, low, high = predicted_total([2.0, 4.0, 6.0], 6)
    half = 2.919986 * 2 * math.sqrt(18)
    assert total == 24 and high == pytest.approx(24 + half, rel=1e-6) and low == 0
    assert predicted_total([5.0, 5.0], 3) == (15.0, 15.0, 15.0)
    assert predicted_total([5.0], 3) == (15.0, 0.0, math.inf)


def test_the_interval_holds_nine_totals_of_ten() -> None:
    rng = random.Random(5)
    inside = 0
    for _ in range(400):
        known = [rng.expovariate(0.05) for _ in range(60)]
        _, low, high = predicted_total(known, 90)
        inside += low <= sum(rng.expovariate(0.05) for _ in range(90)) <= high
    assert 0.85 < inside / 400 < 0.95


def test_sums_add_half_widths_in_squares_and_keep_what_is_unknown() -> None:
    a, b = Figure(10.0, "pilot", 7.0, 13.0), Figure(20.0, "rendered", 16.0, 24.0)
    both = added([a, b, UNKNOWN])
    assert (both.value, both.low, both.high) == (30.0, 25.0, 35.0)
    assert both.source == "pilot + rendered + unknown"
    assert added([]) == NOTHING and added([UNKNOWN]) == UNKNOWN
    open_end = added([a, Figure(5.0, "bound")])
    assert open_end.value == 15 and open_end.low is None
    bounds = added([Figure(3.0, "bound", 0.0, 9.0), Figure(4.0, "bound", 0.0, 12.0)])
    assert (bounds.value, bounds.low, bounds.high) == (7.0, 0.0, 21.0), "bounds add plainly"
    assert a.times(2) == Figure(20.0, "pilot", 14.0, 26.0)
