from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from registry_samples import META, N, U, make_items, make_log, sasrec, write

from llmers_pipelines.models.served import export
from llmers_pipelines.registry.bundle import load_bundle, write_bundle
from llmers_pipelines.registry.manifest import BundleError, read_manifest, write_manifest


def test_round_trip_keeps_weights_ids_titles_and_full_histories(folder: Path, log) -> None:
    bundle = load_bundle(folder)
    _, arrays = export(sasrec())
    assert set(bundle.arrays) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(bundle.arrays[name], array)
    for position, user in enumerate(log.users.ids, start=1):
        assert bundle.users.position(user) == position
        rows = slice(log.user_start[position], log.user_start[position + 1])
        # train, validation and test rows alike
        np.testing.assert_array_equal(bundle.seen[bundle.rows(position)], log.item[rows])
    assert bundle.items.position("b7") == 7 and bundle.items.position("never_seen") == 0
    assert bundle.title(7) == "Book 7"
    assert bundle.title(3) is None and bundle.config["untitled_items"] == 1
    assert bundle.attributes(7) == {"author": ["Ann"], "genres": ["crime", "drama"]}
    assert bundle.attributes(3) == {"author": [], "genres": []}
    assert bundle.config["dataset"] == "books" and bundle.config["task"] == "sequential"
    assert bundle.config["sizes"] == {"users": U, "items": N, "interactions": len(log.item)}


def test_popularity_counts_all_rows_with_ties_by_position(folder: Path, log) -> None:
    bundle = load_bundle(folder)
    expected = sorted(range(1, N + 1), key=lambda i: (-(log.item == i).sum(), i))
    assert bundle.by_popularity.tolist() == expected
    assert expected[0] == 1


def test_popularity_of_a_click_log_counts_liked_rows_only(tmp_path: Path) -> None:
    from llmers_pipelines.registry.bundle import _histories, _liked_signal

    log = make_log()
    label = (np.arange(len(log.item)) % 2).astype(np.float32)
    rating = np.where(label > 0, 4.0, np.nan).astype(np.float32)
    clicks = make_log(task="ctr", label=label, rating=rating)
    held = _histories(clicks)
    for i in range(1, N + 1):
        assert held["popularity"][i] == label[log.item == i].sum()
    assert held["signal"].tolist() == np.where(label > 0, 4.0, 0.0).tolist()
    assert _liked_signal(clicks) == 4.0


def test_equal_content_has_equal_hash_and_another_weight_has_not(
    folder: Path, tmp_path: Path
) -> None:
    again = write(tmp_path / "again", sasrec())
    assert read_manifest(again) == read_manifest(folder)
    net = sasrec()
    net.item_table.weight.data[5, 0] += 1
    other = write(tmp_path / "other", net)
    assert read_manifest(other)["content_hash"] != read_manifest(folder)["content_hash"]


def test_a_folder_is_written_once_and_never_overwritten(folder: Path, tmp_path: Path) -> None:
    kept = shutil.copytree(folder, tmp_path / "kept")
    before = (kept / "config.json").stat().st_mtime_ns
    assert write(kept, sasrec()) == kept
    assert (kept / "config.json").stat().st_mtime_ns == before
    with pytest.raises(BundleError, match="never overwritten"):
        write(kept, sasrec(), meta={**META, "model": "other"})
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]  # no work folder is left


def test_a_bundle_that_cannot_be_served_is_not_written(tmp_path: Path) -> None:
    config, arrays = export(sasrec())
    given = {"data": make_log(), "items": make_items(), "meta": META}
    bad = {**arrays, "item_table.weight": np.full_like(arrays["item_table.weight"], np.nan)}
    with pytest.raises(BundleError, match=r"item_table.weight.*NaN"):
        write_bundle(tmp_path / "x", config=config, arrays=bad, **given)
    fewer = {k: v for k, v in arrays.items() if k != "norm.weight"}
    with pytest.raises(ValueError, match=r"missing arrays \['norm.weight'\]"):
        write_bundle(tmp_path / "x", config=config, arrays=fewer, **given)
    texts = {**arrays, "words": np.array(["a"], object)}
    with pytest.raises(BundleError, match="numbers only"):
        write_bundle(tmp_path / "x", config=config, arrays=texts, **given)
    with pytest.raises(BundleError, match="meta lacks 'model'"):
        write_bundle(tmp_path / "x", config=config, arrays=arrays,
                     **{**given, "meta": {"dataset": "d"}})  # fmt: skip
    with pytest.raises(BundleError, match="item_id"):
        write_bundle(tmp_path / "x", config=config, arrays=arrays,
                     **{**given, "items": pa.table({"id": ["b1"]})})  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_catalog_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not those of a catalog of 12"):
        write(tmp_path / "x", sasrec(n_items=5))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "weights.safetensors").unlink(), "weights.safetensors: missing"),
        (lambda f: (f / "manifest.json").unlink(), "no manifest.json"),
        (lambda f: (f / "manifest.json").write_text("{"), "not a bundle manifest"),
        (lambda f: (f / "users.parquet").write_bytes(b"x"), "1 bytes, expected"),
        (lambda f: _flip(f / "weights.safetensors"), "differs from its checksum"),
        (lambda f: _edit(f / "manifest.json", "format", 99), "bundle format 99.*reads 1"),
        (lambda f: _resize(f), r"users = 7|users.parquet rows = 6"),
    ],
)
def test_damage_is_named(folder: Path, tmp_path: Path, damage, message: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    damage(copy)
    with pytest.raises(BundleError, match=message):
        load_bundle(copy)


def test_unverified_loading_still_checks_sizes(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    _flip(copy / "weights.safetensors")
    load_bundle(copy, verify=False)
    (copy / "users.parquet").write_bytes(b"x")
    with pytest.raises(BundleError, match="1 bytes"):
        load_bundle(copy, verify=False)


def test_attributes_may_be_chosen_and_lists_are_kept(tmp_path: Path) -> None:
    items = pa.table({
        "item_id": ["b2", "b1"], "title": ["Two", "One"], "year": [1999, 2000],
        "tags": pa.array([["x", "", " y"], None], pa.list_(pa.string())),
    })  # fmt: skip
    folder = write(tmp_path / "x", sasrec(), items=items, attributes=["year", "tags"])
    bundle = load_bundle(folder)
    assert bundle.attributes(2) == {"year": ["1999"], "tags": ["x", "y"]}
    assert bundle.attributes(1) == {"year": ["2000"], "tags": []}


def test_no_pickle_and_no_absolute_path_is_in_a_bundle(folder: Path) -> None:
    kinds = {p.suffix for p in folder.iterdir()}
    assert kinds == {".json", ".parquet", ".safetensors"}
    for path in folder.iterdir():
        assert str(folder.parent).encode() not in path.read_bytes()


def _flip(path: Path, at: int = -9) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def _edit(path: Path, key: str, value) -> None:
    document = json.loads(path.read_text())
    document[key] = value
    path.write_text(json.dumps(document))


def _resize(folder: Path) -> None:
    _edit(folder / "config.json", "sizes", {"users": 7, "items": N, "interactions": 28})
    (folder / "manifest.json").unlink()
    write_manifest(folder)
