"""`store verify`: flips in what names a form, in requests of batches, in SQLite and model files."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmers_pipelines.llm.ledger import Ledger, Use, ledger_file
from llmers_pipelines.registry.manifest import bundle_faults, write_manifest, write_model_list
from llmers_pipelines.store.audit import audit
from llmers_pipelines.store.findings import NEWER
from llmers_pipelines.store.fingerprints import CELL_FILES, read_fingerprint, write_fingerprint
from llmers_pipelines.store.formats import FormatError, StoreError, sealed
from llmers_pipelines.store.responses import ResponseStore
from llmers_pipelines.store.rows import SCHEMA
from llmers_pipelines.store.segments import SegmentFolder
from llmers_pipelines.store.vector_form import read_space, text_keys
from llmers_pipelines.store.vectors import VectorStore

SPACE = {"identity": "e", "dim": 4}
FORMS = {"now": None, "2": {**SPACE, "format": 2}, "1": SPACE}


def flips(body: bytes, step: int = 1):
    """Yield every single flip of a document, or those of each ``step``-th bit."""
    for n in range(0, 8 * len(body), step):
        out = bytearray(body)
        out[n // 8] ^= 1 << n % 8
        yield bytes(out)


def space(data: Path, form: dict | None = None) -> Path:
    """Return ``space.json`` of a store with three vectors, as some version wrote it."""
    folder = VectorStore(data / "vectors").space("e", 4)
    folder.append(text_keys("e", "abc"), np.ones((3, 4), np.float32))
    path = folder.folder / "space.json"
    if form:
        path.write_text(json.dumps(form))
    return path


def cell(data: Path) -> Path:
    folder = data / "cells" / "shop" / "c1"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"weights")
    (folder / "cell.json").write_text('{"seconds": 5.0}')
    write_fingerprint(folder)
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_no_flip_of_a_spaces_description_passes_or_names_a_newer_version(tmp_path, form) -> None:
    path = space(tmp_path, FORMS[form])
    whole, said = path.read_bytes(), read_space(path)
    for body in flips(whole):
        path.write_bytes(body)
        faults = audit(tmp_path, {}).faults
        assert not any(f.mend == NEWER for f in faults), body
        if not faults:  # a blank in the place of another, say
            assert read_space(path) == said, body


@pytest.mark.parametrize("form", FORMS)
def test_a_flipped_description_is_restored_and_its_vectors_stay(tmp_path, form) -> None:
    path = space(tmp_path, FORMS[form])
    whole = path.read_bytes()
    for body in flips(whole, step=13):
        path.write_bytes(body)
        report = audit(tmp_path, {}, mend=True)
        store = VectorStore(tmp_path / "vectors")
        assert store.space("e", 4).lookup(text_keys("e", "abc"))[0].all(), body
        assert "vectors" not in report.regeneration and not audit(tmp_path, {}).faults, body


def test_no_flip_of_a_cells_list_passes_or_names_a_newer_version(tmp_path: Path) -> None:
    folder = cell(tmp_path)
    path = folder / CELL_FILES
    whole, said = path.read_bytes(), read_fingerprint(folder)
    for body in flips(whole, step=3):
        path.write_bytes(body)
        try:
            assert read_fingerprint(folder) == said, body
        except FormatError:
            pytest.fail(f"a newer version: {body!r}")
        except StoreError:
            continue
    old = json.dumps({"format": 1, "files": said}).encode()
    for body in (whole.replace(b'"format": 2', b'"format": 3'),
                 old.replace(b'"format": 1', b'"format": 3')):  # fmt: skip
        path.write_bytes(body)
        (fault,) = audit(tmp_path, {}, mend=True).faults
        assert "damaged" in fault.problem and read_fingerprint(folder) == said
        assert not audit(tmp_path, {}).faults and (folder / "weights.safetensors").is_file()


def test_what_a_newer_version_wrote_is_named_and_the_rest_is_examined(tmp_path: Path) -> None:
    newer = space(tmp_path)
    body = json.dumps(sealed(SPACE, 9))
    newer.write_text(body)
    (cell(tmp_path) / "weights.safetensors").write_bytes(b"weighty")
    report = audit(tmp_path, {}, mend=True)
    assert [(f.store, f.mend == NEWER) for f in report.faults] == [
        ("cells", False), ("vectors", True)
    ]  # fmt: skip
    assert "format 9" in report.faults[1].problem and newer.read_text() == body


def test_newer_answers_and_manifests_are_left_where_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "responses"
    with ResponseStore(folder).writer() as writer:
        writer.put(text="x", finish_reason="stop", request="r", identity="i", model="m")
    SegmentFolder(folder, SCHEMA, version=9).publish(SCHEMA.empty_table())
    first, last = sorted(folder.glob("*.parquet"))
    first.write_bytes(first.read_bytes()[:-40])  # and one that is damaged beside it
    manifest = tmp_path / "manifests" / "shop" / "catalog" / "items" / "current.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps(sealed({"name": "catalog/items"}, 9)))
    report = audit(tmp_path, {}, mend=True)
    assert {(f.store, f.path) for f in report.faults if f.mend == NEWER} == {
        ("answers", str(last)), ("manifests", str(manifest))
    }  # fmt: skip
    (damaged,) = (f for f in report.faults if f.mend != NEWER)
    assert damaged.path == str(first) and Path(damaged.aside).is_dir()
    assert last.is_file() and manifest.is_file()


def export(data: Path, names: str) -> ResponseStore:
    store = ResponseStore(data / "batches" / "outbox")
    with store.writer() as writer:
        for name in names:
            writer.put(text="", finish_reason="exported", request=f"what is {name}" * 9,
                       identity="m", libraries="{}", row_id=name)  # fmt: skip
    return store


def test_flips_in_requests_of_a_batch_are_found_and_good_ones_stay(tmp_path: Path) -> None:
    store = export(tmp_path, "abcdefgh")
    (path,) = store.files()
    whole = path.read_bytes()
    rows = store.segments.read(store.segments.segments()[0]).to_pylist()
    found = 0
    for body in flips(whole, step=397):
        path.write_bytes(body)
        faults = audit(tmp_path, {}).faults
        found += bool(faults)
        if faults:
            assert faults[0].store == "batches" and "batch export" in faults[0].mend
        else:
            assert (
                ResponseStore(path.parent).segments.read(store.segments.segments()[0]).to_pylist()
                == rows
            )
    assert found > 8 * len(whole) / 397 / 2
    rows[3]["text"], rows[5]["request"] = "forged", "what is another"
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
    report = audit(tmp_path, {}, mend=True)
    assert all(Path(f.aside).is_dir() for f in report.faults) and report.faults
    assert not audit(tmp_path, {}).faults
    kept = {r["key"]: r["request"] for r in store.records(r["key"] for r in rows)}
    assert set(kept) == {r["key"] for r in rows} - {rows[3]["key"]}
    assert kept[rows[5]["key"]] is None, "a request that is not proven is not believed"


def test_a_damaged_ledger_is_named_at_once_and_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "spending.sqlite"
    book = Ledger(path)
    book.book("2026-01-01", "r", "m", Use(1, 2, 3))
    book.close()
    check = [ledger_file(path)]
    report = audit(tmp_path, {}, databases=check)
    assert not report.faults and report.checked["SQLite files"] == 1
    for body in (b"garbage" * 300, path.read_bytes()[:18] + b"\x09" + path.read_bytes()[19:]):
        path.write_bytes(body)
        assert len(audit(tmp_path, {}, databases=check).faults) == 1
    path.write_bytes(b"garbage" * 300)
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"spending\.sqlite: not a whole SQLite file.*verify"):
        Ledger(path)
    assert time.monotonic() - started < 5
    (fault,) = audit(tmp_path, {}, mend=True, databases=check).faults
    assert fault.store == "spending" and "lower the day's bounds" in fault.mend
    assert not path.exists() and (Path(fault.aside) / path.name).is_file()
    Ledger(path).close()
    assert not audit(tmp_path, {}, databases=check).faults


def test_a_ledger_whose_tables_go_by_another_name_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "spending.sqlite"
    Ledger(path).close()
    path.write_bytes(path.read_bytes().replace(b"spent", b"rpent"))
    (fault,) = audit(tmp_path, {}, databases=[ledger_file(path)]).faults
    assert "spent" in fault.problem or "SQLite" in fault.problem


def test_every_file_of_a_registered_model_is_checked(tmp_path: Path) -> None:
    model = tmp_path / "models" / "m-1"
    bundle = model / "artifacts" / "bundle"
    bundle.mkdir(parents=True)
    for name in ("config.json", "weights.safetensors", "catalog.parquet", "users.parquet",
                 "histories.safetensors"):  # fmt: skip
        (bundle / name).write_bytes(name.encode())
    write_manifest(bundle)
    (model / "MLmodel").write_text("flavors: {}")
    assert list(bundle_faults(tmp_path)) == [(bundle, "", False)], "an older registration"
    manifest = bundle / "manifest.json"
    whole = manifest.read_bytes()
    said = json.loads(whole)
    for body in flips(whole, step=7):
        manifest.write_bytes(body)
        ((_, problem, _),) = bundle_faults(tmp_path)
        assert problem or json.loads(body) == said, body
    manifest.write_bytes(whole)
    write_model_list(model)
    assert list(bundle_faults(tmp_path)) == [(model, "", True)]
    files = [p for p in model.rglob("*") if p.is_file()]
    assert len(files) == 8
    for path in files:
        body = path.read_bytes()
        path.write_bytes(body[:-2] + bytes([body[-2] ^ 4]) + body[-1:])
        ((_, problem, _),) = bundle_faults(tmp_path)
        assert problem, path
        path.write_bytes(body)
