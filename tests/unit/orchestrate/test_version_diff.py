"""Differences between versions against cases that are counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from llmers_pipelines.data.training import IdMap, TrainingData
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.orchestrate.context import StepError
from llmers_pipelines.orchestrate.diff import resolve
from llmers_pipelines.orchestrate.diff.compare import log_rows
from llmers_pipelines.orchestrate.diff.models import weight_changes
from llmers_pipelines.orchestrate.diff.tables import row_diff
from llmers_pipelines.orchestrate.diff.vectors import vector_drift
from llmers_pipelines.store.manifests import Manifest, ManifestStore


def test_rows_are_joined_by_their_key() -> None:
    before = pa.table({
        "item_id": ["a", "b", "c", "d"], "title": ["A", None, "C", "D"],
        "tags": [["x"], ["y"], ["z"], None], "gone": [1, 2, 3, 4],
    })  # fmt: skip
    after = pa.table({
        "item_id": ["d", "c", "b", "e"], "title": ["D", "C", "B", "E"],
        "tags": [None, ["z", "w"], ["y"], ["v"]], 'ne"w': [1, 2, 3, 4],
    })  # fmt: skip
    found = row_diff(before, after, {"b": "Book b"})
    assert found.key == ("item_id",)
    assert (found.added, found.removed, found.changed, found.same) == (1, 1, 2, 1)
    assert found.by_column == {"title": 1, "tags": 1}, "null is a value like others"
    assert (found.columns_added, found.columns_removed) == (('ne"w',), ("gone",))
    b, c = found.changed_examples
    assert (b.key, b.title, b.columns) == ({"item_id": "b"}, "Book b", {"title": (None, "B")})
    assert c.columns == {"tags": (["z"], ["z", "w"])}
    assert [r["item_id"] for r in found.added_examples] == ["e"]
    assert [r["item_id"] for r in found.removed_examples] == ["a"]


def test_a_column_of_another_type_is_compared_as_text() -> None:
    before = pa.table({"item_id": ["a", "b"], "year": [1999, 2000]})
    after = pa.table({"item_id": ["a", "b"], "year": ["1999", "about 2000"]})
    assert row_diff(before, after, {}).by_column == {"year": 1}


def test_rows_without_a_key_are_counted_with_repetitions() -> None:
    before = pa.table({"user_id": ["u", "u", "v"], "item_id": ["a", "a", "a"]})
    after = pa.table({"user_id": ["u", "v", "v"], "item_id": ["a", "a", "b"]})
    found = row_diff(before, after, {})
    assert found.key == () and (found.added, found.removed, found.same) == (1, 1, 2)


def test_logs_are_compared_by_ids_and_not_by_positions() -> None:
    one = TrainingData("sequential", IdMap(("u",)), IdMap(("a", "b")), np.array([1, 1]),
                       np.array([1, 2]), np.array([5, 6]), np.array([0, 2], np.int8))  # fmt: skip
    two = TrainingData("sequential", IdMap(("u",)), IdMap(("b", "a")), np.array([1, 1]),
                       np.array([2, 1]), np.array([5, 6]), np.array([0, 1], np.int8))  # fmt: skip
    found = row_diff(log_rows(one), log_rows(two), {})
    assert (found.added, found.removed, found.changed, found.same) == (0, 0, 1, 1)
    assert found.changed_examples[0].columns == {"split": ("test", "valid")}


def table(ids: str, rows: list[list[float]], mask: str = "") -> VectorTable:
    known = np.array([c == "1" for c in mask or "1" * len(ids)])
    return VectorTable("item", tuple(ids), np.array(rows, np.float32), known)


def test_drift_is_the_cosine_of_rows_that_are_known_in_both(tmp_path: Path) -> None:
    folders = (tmp_path / "one", tmp_path / "two")
    for folder, texts in zip(folders, (["p", "q", "r", "s"], ["r", "q", "new", "s"]), strict=True):
        folder.mkdir()
        ids = ["a", "b", "c", "d"] if folder.name == "one" else ["c", "b", "a", "e"]
        pq.write_table(pa.table({"item_id": ids, "text": texts}), folder / "texts.parquet")
    before = table("abcd", [[1, 0], [0, 2], [1, 1], [1, 0]], "1110")
    after = table("cbae", [[1, 1], [0, 1], [0, 3], [1, 0]], "1111")
    found = vector_drift(before, after, folders, {"a": "Title"})
    # a: (1,0) to (0,3) = 0; b: same direction = 1; c: equal = 1
    assert (found.added, found.removed, found.compared) == (1, 1, 3)
    assert (found.mean, found.least) == pytest.approx((2 / 3, 0.0))
    assert found.p5 == pytest.approx(0.1)  # between 0 and 1, a tenth of the way
    assert found.unmoved == pytest.approx(2 / 3)
    assert found.texts_changed == 1 and found.mean_same_text == pytest.approx(1.0)
    (moved,) = found.moved
    assert (moved.id, moved.title, moved.cosine, moved.text_changed) == ("a", "Title", 0.0, True)


def test_turned_axes_move_the_cosine_and_keep_the_neighbours(tmp_path: Path) -> None:
    rows = np.random.default_rng(3).normal(size=(40, 6)).astype(np.float32)
    turn, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(6, 6)))
    ids = tuple(f"i{n}" for n in range(40))
    one = VectorTable("item", ids, rows, np.ones(40, bool))
    two = VectorTable("item", ids, (rows @ turn).astype(np.float32), np.ones(40, bool))
    found = vector_drift(one, two, (tmp_path, tmp_path), {})
    assert found.mean is not None and found.mean < 0.9 and found.overlap == pytest.approx(1.0)
    shuffled = VectorTable("item", ids, rows[::-1].copy(), np.ones(40, bool))
    other = vector_drift(one, shuffled, (tmp_path, tmp_path), {})
    assert other.overlap is not None and other.overlap < 0.6


def test_other_widths_are_not_compared(tmp_path: Path) -> None:
    found = vector_drift(table("a", [[1, 0]]), table("a", [[1, 0, 0]]), (tmp_path, tmp_path), {})
    assert "width 2 and 3" in found.incomparable and found.mean is None


def test_weights_move_by_norm_and_direction(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    same = np.array([1.0, 2.0], np.float32)
    for folder, arrays in (
        (one, {"w": np.array([3.0, 4.0], np.float32), "same": same, "left": same}),
        (two, {"w": np.array([4.0, -3.0], np.float32), "same": same, "wide": np.ones((2, 2))}),
    ):
        folder.mkdir()
        save_file(arrays, folder / "weights.safetensors")
    found = {w.name: w for w in weight_changes(one, two)}
    w = found["w"]
    assert (w.norm_before, w.norm_after) == (5.0, 5.0)
    assert w.relative == pytest.approx(np.sqrt(50) / 5) and w.cosine == pytest.approx(0.0)
    assert found["same"].relative == 0 and found["same"].cosine == pytest.approx(1.0)
    assert found["left"].shape == ("2", "none") and found["left"].relative is None
    assert found["wide"].shape == ("none", "2x2")


def test_versions_are_named_by_prefix_or_place(tmp_path: Path) -> None:
    store = ManifestStore(tmp_path)
    for n, version in enumerate(("abc1", "abd2", "ff03")):
        store.write(Manifest("catalog/items", "shop", "code", version, "digest", version,
                             created=f"2026-01-0{n + 1}"))  # fmt: skip

    def named(word: str) -> str:
        return resolve(store, "shop", "catalog/items", word).data_version

    assert (named("current"), named("previous"), named("ff"), named("abc1")) == (
        "ff03", "abd2", "ff03", "abc1"
    )  # fmt: skip
    with pytest.raises(StepError, match=r"2 versions begin with 'ab'; stored: abc1 \(2026-01-01\)"):
        named("ab")
    with pytest.raises(StepError, match=r"no version 'zz'.*ff03 \(2026-01-03, current\)"):
        named("zz")
    with pytest.raises(StepError, match=r"no version is stored.*catalog/items"):
        resolve(store, "shop", "catalog/users", "current")
