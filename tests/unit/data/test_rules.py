from __future__ import annotations

import pyarrow as pa
import pytest

from llmers_pipelines.data.rules import parse_rule
from llmers_pipelines.data.schema import DataError

TABLE = pa.table({
    "rating": pa.array([5.0, 3.0, None, 4.0]),
    "event": ["click", "view", None, "click"],
    "clicked": [1, 0, None, 1],
    "bought": pa.array([True, False, None, True]),
    "words": ["1", "2", "x", "3"],
})  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ("rating >= 4", [True, False, False, True]),
        ("rating>4", [True, False, False, False]),
        ("rating != 3", [True, False, False, True]),
        ("event == 'click'", [True, False, False, True]),
        ('event != "click"', [False, True, True, False]),
        ("event == click", [True, False, False, True]),
        ("clicked", [True, False, False, True]),
        ("bought", [True, False, False, True]),
    ],
)
def test_rules(rule, holds):
    found, known = parse_rule(rule).holds(TABLE)
    assert found.tolist() == holds
    assert known.tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("", "not of the form"),
        ("rating >= good", "== and != only"),
        ("ratng >= 4", "did you mean 'rating'?"),
        ("rating", "more than 0 and 1"),
        ("words >= 2", "'x' in column 'words' is no number"),
    ],
)
def test_faults(rule, words):
    with pytest.raises(DataError) as fault:
        parse_rule(rule).holds(TABLE)
    assert words in str(fault.value)
