"""The parts of a trace against cases that are computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llmers_pipelines.config import Settings
from llmers_pipelines.data.training import HISTORY, TEST, TRAIN, VALID, IdMap, TrainingData
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.orchestrate.lineage_url import (
    asset_path,
    diff_path,
    lineage_root,
    row_path,
)
from llmers_pipelines.orchestrate.trace.entities import (
    entities_of,
    holds,
    log_content,
    named_items,
    table_content,
)
from llmers_pipelines.orchestrate.trace.form import CatalogRow, Named, TableRows, plain
from llmers_pipelines.orchestrate.trace.stored import Cache
from llmers_pipelines.orchestrate.trace.vectors import nearest, vector_content
from llmers_pipelines.store.manifests import Manifest

# Cosines to the first row, by hand: 0.6 (2), 0.8 (3), masked (4), -1 (5), 0.8 (6).
VECTORS = VectorTable(
    "item", ("1", "2", "3", "4", "5", "6"),
    np.array([[2, 0], [3, 4], [4, 3], [9, 0], [-1, 0], [8, 6]], np.float32),
    np.array([True, True, True, False, True, True]),
)  # fmt: skip


def manifest(name: str) -> Manifest:
    return Manifest(name, "shop", "code", "data", "digest", "folder")


def test_neighbours_are_the_nearest_rows_that_know_their_entity() -> None:
    found = nearest(VECTORS, 0, k=3)
    assert [i for i, _ in found] == [2, 5, 1], "equal ones stand in the order of the table"
    np.testing.assert_allclose([c for _, c in found], [0.8, 0.8, 0.6], rtol=1e-6)
    assert [i for i, _ in nearest(VECTORS, 0, k=99)] == [2, 5, 1, 4]


def test_a_vector_tells_norm_text_and_titles(tmp_path: Path) -> None:
    pq.write_table(pa.table({"item_id": ["2", "1"], "text": ["two", "one"]}),
                   tmp_path / "texts.parquet")  # fmt: skip
    told = vector_content(VECTORS, "2", tmp_path, "tfidf", {"3": "Three"})
    assert told is not None and (told.norm, told.known, told.text) == (5.0, True, "two")
    assert told.neighbours[0] == Named("3", "Three", 0.96)  # (3*4 + 4*3) / 25
    assert told.compared == 4
    unknown = vector_content(VECTORS, "4", tmp_path, "", {})
    assert unknown is not None and not unknown.known
    assert unknown.neighbours == () and unknown.text == ""
    assert vector_content(VECTORS, "7", tmp_path, "", {}) is None


def log() -> TrainingData:
    return TrainingData(
        "sequential", IdMap(("1", "u")), IdMap(("1", "2", "3")),
        np.array([1, 1, 1, 1, 2]), np.array([2, 3, 1, 2, 1]), np.arange(5),
        np.array([HISTORY, TRAIN, VALID, TEST, TRAIN], np.int8),
    )  # fmt: skip


def test_an_id_that_a_user_and_an_item_share_is_told_apart() -> None:
    data = log()
    user = log_content(data, "user", "1", {"3": "Three"})
    item = log_content(data, "item", "1", {})
    assert user is not None and item is not None
    assert user.rows == {"train": 1, "valid": 1, "test": 1, "history": 1}
    assert user.newest == (Named("2", None), Named("3", "Three")), "no held-out row is shown"
    assert item.rows == {"train": 1, "valid": 1, "test": 0} and item.newest == ()
    assert holds(data, "item", "3") and not holds(data, "user", "3")
    assert not holds(VECTORS, "user", "1") and holds(VECTORS, "item", "1")
    users = pa.table({"user_id": ["1"], "text": ["a reader"]})
    assert entities_of(users) == ("user",) and not holds(users, "item", "1")


def test_rows_of_a_table_are_summed_up() -> None:
    taught = pa.table({
        "user_id": ["a", "a", "a", "b"], "position": [1, 2, 2, 1], "rank": [1, 2, 1, 4],
        "item_id": ["x", "x", "y", "x"],
    })  # fmt: skip
    by_user = table_content(manifest("teacher_states/t"), taught, "user", "a")
    assert isinstance(by_user, TableRows) and by_user.note == "2 positions, the newest is 2"
    assert [r["item_id"] for r in by_user.rows] == ["y", "x"]
    by_item = table_content(manifest("teacher_states/t"), taught, "item", "x")
    assert isinstance(by_item, TableRows) and by_item.note == "in 3 lists, mean rank 2.33"
    assert table_content(manifest("teacher_states/t"), taught, "item", "z") is None
    row = table_content(manifest("catalog/items"), pa.table({"item_id": ["x"], "title": [None]}),
                        "item", "x")  # fmt: skip
    assert row == CatalogRow({"item_id": "x"})


def test_items_are_named_where_ids_stand_and_not_in_texts() -> None:
    titles = {"1": "One", "2": "Two"}
    rows = {"rows": [{"item_id": "1", "rank": "2"}], "liked": ["2"], "text": "1"}
    assert dict(named_items(rows, titles)) == titles
    assert dict(named_items({"rows": [{"rank": "2"}]}, titles)) == {}


def test_the_cache_is_bounded_and_drops_what_was_used_longest_ago() -> None:
    cache = Cache(limit=3000)
    one, two, three = (np.zeros(n, np.int8) for n in (1000, 1500, 1200))
    assert cache.get("one", lambda: one) is cache.get("one", lambda: two)
    cache.get("two", lambda: two)
    cache.get("one", lambda: three)  # used again, so "two" is the oldest now
    cache.get("three", lambda: three)
    assert cache.size == 2200 and len(cache) == 2
    assert cache.get("one", lambda: two) is one
    assert len(cache.get("large", lambda: np.zeros(9000, np.int8))) == 9000
    assert cache.size == 2200, "what is larger than the bound is not kept"


def test_addresses_hold_any_id() -> None:
    path = row_path("shop", "catalog/items", "a/b c?%&=#ü", entity="item", version="")
    assert path == (
        "/d/shop/a/catalog/items/row?id=a%2Fb%20c%3F%25%26%3D%23%C3%BC&entity=item"
    )
    assert asset_path("shop", "catalog/items") == "/d/shop/a/catalog/items"
    assert diff_path("shop", "catalog/items", "a", "b").endswith("/diff?from=a&to=b")
    assert lineage_root(Settings()) == "http://127.0.0.1:3001"
    assert lineage_root(Settings(lineage_url="https://host/x/")) == "https://host/x"


def test_a_form_is_plain_data() -> None:
    assert plain(Named("1", None, 0.5)) == {"id": "1", "title": None, "cosine": 0.5}
    assert plain({1: (Named("1", "x"),)}) == {"1": [{"id": "1", "title": "x", "cosine": None}]}
