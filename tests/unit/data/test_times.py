from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest

from llmers_pipelines.data.times import parse_times

NOON = 1_577_880_000  # 2020-01-01T12:00:00Z


def parse(values, mode="auto", kind=None):
    return parse_times(pa.chunked_array([pa.array(values, kind)]), mode)


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([NOON, NOON + 1], "seconds"),
        ([NOON * 1000, (NOON + 1) * 1000], "milliseconds"),
        ([NOON * 10**6, (NOON + 1) * 10**6], "microseconds"),
        ([NOON * 10**9, (NOON + 1) * 10**9], "nanoseconds"),
        ([str(NOON), str(NOON + 1)], "seconds"),
        ([f"{NOON * 10**9}", f"{(NOON + 1) * 10**9}"], "nanoseconds"),
        ([float(NOON), float(NOON + 1)], "seconds"),
        (["2020-01-01T12:00:00Z", "2020-01-01 12:00:01"], "iso"),
        (["2020-01-01T14:00:00+02:00", "2020-01-01T12:00:01+00:00"], "iso"),
    ],
)
def test_units_are_told_apart(values, unit):
    times = parse(values)
    assert times.unit == unit and times.clock and not times.bad.any()
    assert times.seconds().tolist() == [NOON, NOON + 1]


def test_arrow_moments_and_dates():
    zone = timezone(timedelta(hours=2))
    moments = pa.array([datetime(2020, 1, 1, 14, tzinfo=zone), None], pa.timestamp("ms", "Etc/UTC"))
    times = parse_times(pa.chunked_array([moments]))
    assert times.seconds().tolist()[0] == NOON and times.missing.tolist() == [False, True]
    assert parse([date(2020, 1, 1)]).seconds().tolist() == [NOON - 12 * 3600]
    assert parse([datetime(2020, 1, 1, 12)]).seconds().tolist() == [NOON]


def test_small_numbers_are_an_order():
    times = parse([3, 1, 2])
    assert not times.clock and times.seconds().tolist() == [3, 1, 2]
    assert not parse(["10", "20"], "order").clock


def test_bad_and_missing_values():
    times = parse(["2020-01-01", "yesterday", "", None, "2020-13-01"])
    assert times.bad.tolist() == [False, True, False, False, True]
    assert times.missing.tolist() == [False, False, True, True, False]
    mixed = parse([str(NOON), str(NOON), str(NOON * 1000), "2020-01-01"])
    assert mixed.bad.tolist() == [False, False, True, True]  # a millisecond among seconds, a date
    assert parse([float("nan"), float(NOON)]).missing.tolist() == [True, False]


def test_declared_unit_wins_over_the_guess():
    assert parse([5, 6], "seconds").seconds().tolist() == [5, 6]
    assert parse([5000, 6000], "milliseconds").seconds().tolist() == [5, 6]
    assert parse(["01/02/2020"], "%d/%m/%Y").seconds().tolist() == [
        int(datetime(2020, 2, 1, tzinfo=UTC).timestamp())
    ]
    assert parse(["20"], "iso").bad.tolist() == [True]


def test_order_within_a_second_is_kept():
    times = parse([NOON * 1000 + 900, NOON * 1000 + 100])
    assert times.finer_than_seconds and times.seconds().tolist() == [NOON, NOON]
    assert np.argsort(times.values).tolist() == [1, 0]
    assert not parse([NOON]).finer_than_seconds


@pytest.mark.parametrize("wrong", ["nan", "NaN", "inf", "-Infinity", "1e300", "9" * 30])
@pytest.mark.parametrize("mode", ["auto", "seconds"])
def test_a_number_that_is_no_moment_leaves_the_others_as_they_are(wrong, mode):
    times = parse([str(NOON), wrong, str(NOON + 2)], mode)
    assert times.clock and times.unit == "seconds"
    assert times.bad.tolist() == [False, True, False] and not times.missing.any()
    assert times.seconds()[[0, 2]].tolist() == [NOON, NOON + 2]


def test_infinite_numbers_are_bad_in_every_mode():
    for mode in ("auto", "seconds", "milliseconds", "order"):
        assert parse([float(NOON), float("inf"), 1e300], mode).bad.tolist() == [False, True, True]
    order = parse(["3", "nan", "inf", "1"], "order")
    assert order.bad.tolist() == [False, True, True, False]
    assert order.seconds()[[0, 3]].tolist() == [3, 1]


def test_dates_that_stand_for_no_moment_are_bad():
    times = parse(["2020-01-01", "infinity", "9999-12-31", "0001-01-01"])
    assert times.bad.tolist() == [False, True, True, True]
    moments = pa.array([datetime(2020, 1, 1), datetime(9999, 12, 31), None])
    assert parse_times(pa.chunked_array([moments])).bad.tolist() == [False, True, False]


@pytest.mark.parametrize("values", [[0.9, 0.1, 0.5, 0.9, None], ["0.9", "0.1", "0.5", ".9", ""]])
def test_fractions_of_an_order_become_ranks(values):
    times = parse(values, "order")
    assert times.seconds()[:4].tolist() == [2, 0, 1, 2]
    assert times.missing.tolist() == [False] * 4 + [True] and not times.bad.any()


def test_large_whole_numbers_of_an_order_stay_exact():
    large = ["9007199254740993", "9007199254740992", "nan"]
    assert parse(large, "order").seconds()[:2].tolist() == [2**53 + 1, 2**53]
