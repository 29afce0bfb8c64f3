from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest

from llmers_pipelines.data.ids import ids_as_text


def text(values, kind=None, mode="text"):
    return ids_as_text(pa.array(values, kind), mode)[0].to_pylist()


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([7, 9007199254740993, None], pa.int64(), ["7", "9007199254740993", None]),
        ([18446744073709551615], pa.uint64(), ["18446744073709551615"]),
        (["007", " 7 ", "", "1.0", "x y"], None, ["007", "7", None, "1.0", "x y"]),
        ([1.0, 2.5, float("nan"), None, -0.0], pa.float64(), ["1", "2.5", None, None, "0"]),
        ([Decimal("12.00"), Decimal("12.50")], None, ["12", "12.50"]),
        ([Decimal(2**100)], pa.decimal128(38, 0), [str(2**100)]),
        (["550e8400-e29b-41d4-a716-446655440000"], None, ["550e8400-e29b-41d4-a716-446655440000"]),
        ([bytes(range(16))], pa.binary(16), ["000102030405060708090a0b0c0d0e0f"]),
        ([b"001", "ü1".encode(), None, b""], pa.binary(), ["001", "ü1", None, None]),
        ([b" 007 ", b"\xff\x01", b"\x00a"], pa.large_binary(), ["007", "ff01", "0061"]),
        ([b"A01"], pa.binary(3), ["A01"]),
        ([True], None, ["true"]),
    ],
)
def test_ids_keep_what_the_source_meant(values, kind, expected):
    assert text(values, kind) == expected


def test_floats_that_lost_digits_are_marked():
    ids, lost = ids_as_text(pa.array([1.0, 2.0**53, 1e300, float("inf")]))
    assert lost.tolist() == [False, True, True, True]
    assert ids.to_pylist()[0] == "1"


def test_integer_mode_reads_one_number_however_written():
    values = ["007", "7", "7.0", "7.00", "0", "000", "a7", "7.5"]
    assert text(values, mode="integer") == ["7", "7", "7", "7", "0", "0", "a7", "7.5"]


def test_dictionary_and_chunked_input():
    column = pa.chunked_array([pa.array(["a", "b"]).dictionary_encode()])
    assert ids_as_text(column)[0].to_pylist() == ["a", "b"]


def test_bytes_follow_the_mode_of_the_ids():
    assert text([b"007", b"7.0"], pa.binary(), mode="integer") == ["7", "7"]
