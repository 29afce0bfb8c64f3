"""What every derivation is given: its sources, and clear words about what is not among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from llmers_pipelines.data.training import IdMap, TrainingData
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.derive.derivation import Derivation, DerivedTable, Given


@dataclass(frozen=True)
class Asked(DerivedTable):
    """Hands back what it was given."""

    def make(self, given: Given) -> tuple[Any, dict[str, Any]]:
        return given, {}


def log() -> TrainingData:
    ids, one = IdMap(("a",)), np.ones(1, int)
    return TrainingData("sequential", ids, ids, one, one, one, np.zeros(1, np.int8))


def given(*sources: Any, **more: Any) -> Given:
    return Asked().apply(sources, **more)[0]


def test_the_log_may_be_a_source_or_an_argument_and_counts_once():
    data = log()
    assert given(data).log is data and given(log=data).log is data
    assert given("x", data, log=data).sources == (data, "x")
    with pytest.raises(ValueError, match=r"Asked needs the splits of a task"):
        _ = given("x").log


def test_tables_are_found_by_their_columns_in_order():
    one, two = pa.table({"item_id": ["i"]}), pa.table({"item_id": ["i"], "text": ["t"]})
    assert given(one, two).table() is one and given(one, two).table("item_id") is one
    assert given(one, two).table("text", "item_id") is two
    with pytest.raises(ValueError, match=r"Asked needs a table with rank; found item_id; item_id"):
        given(one, two).table("rank")
    with pytest.raises(ValueError, match=r"Asked needs a table; found no table"):
        given(log()).table()


def test_one_table_of_vectors_is_the_one():
    vectors = VectorTable("item", ("a",), np.ones((1, 2), np.float32), np.ones(1, bool))
    assert given(log(), vectors).vectors is vectors
    with pytest.raises(ValueError, match=r"one vector table; got VectorTable, VectorTable"):
        _ = given(vectors, vectors).vectors


def test_a_derivation_without_its_own_make_says_so():
    with pytest.raises(NotImplementedError):
        Derivation().apply([])
    assert (Derivation.output, DerivedTable.output) == ("vectors", "table")
