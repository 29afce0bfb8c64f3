"""Export and import: whole or not at all, twice is once, nothing stored is replaced."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmers_pipelines.store import transfer
from llmers_pipelines.store.formats import FormatError, StoreError
from llmers_pipelines.store.responses import ResponseStore
from llmers_pipelines.store.rows import SCHEMA
from llmers_pipelines.store.transfer import export_answers, import_answers


def fill(folder: Path, texts: dict[str, str], **about: str) -> ResponseStore:
    store = ResponseStore(folder)
    with store.writer(flush_rows=2) as writer:
        for request, text in texts.items():
            writer.put(text=text, finish_reason="stop", request=request, identity="m",
                       tokens_in=5, tokens_out=7, **about)  # fmt: skip
    return store


def texts(store: ResponseStore) -> dict[str, str]:
    rows = [r for s in store.segments.segments() for r in store.segments.read(s).to_pylist()]
    return {r["request"]: r["text"] for r in rows}


@pytest.mark.parametrize("name", ["out", "out.tar"])
def test_what_was_exported_is_imported_once(tmp_path: Path, name: str, monkeypatch) -> None:
    monkeypatch.setattr(transfer, "PART_ROWS", 3)
    told = {str(n): f"answer {n}" for n in range(8)}
    store = fill(tmp_path / "a", told, model="big@ab", task="t", row_id="x")
    header = export_answers(store, tmp_path / name)
    assert (header["rows"], header["tokens_in"], header["tokens_out"]) == (8, 40, 56)
    assert len(header["files"]) == 2 and sum(f["rows"] for f in header["files"].values()) == 8
    other = fill(tmp_path / "b", {"1": "answer 1"})
    first, again = (import_answers(other, tmp_path / name) for _ in range(2))
    assert (first.added, first.present, first.refused) == (7, 1, 0)
    assert (again.added, again.present, again.conflicts) == (0, 8, [])
    assert texts(other) == told and other.verify() == []
    (row,) = [r for r in other.records([*other.known(known_keys(store))]) if r["request"] == "2"]
    (origin,) = [r for r in store.records(known_keys(store)) if r["request"] == "2"]
    assert row == origin, "model, task and time travel with the answer"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    with pytest.raises(StoreError, match="there already"):
        export_answers(store, tmp_path / name)


def known_keys(store: ResponseStore) -> list[str]:
    parts = [store.segments.read(s, ["key"]) for s in store.segments.segments()]
    return pa.concat_tables(parts)["key"].to_pylist()


def test_filters_choose_rows(tmp_path: Path) -> None:
    store = fill(tmp_path / "a", {"1": "x", "2": "y"}, model="big@ab", task="t")
    fill(tmp_path / "a", {"3": "z"}, model="small", task="u")
    key = next(k for k in known_keys(store) if store.lookup([k])[k].text == "y")
    for number, (filters, rows) in enumerate([
        ({"task": "t"}, 2), ({"model": "big"}, 2), ({"model": "big@ab"}, 2), ({"model": "bi"}, 0),
        ({"task": "u", "model": "big"}, 0), ({"keys": {key}}, 1),
    ]):  # fmt: skip
        assert export_answers(store, tmp_path / f"e{number}", **filters)["rows"] == rows, filters


def test_another_answer_to_a_stored_key_is_reported_and_not_taken(tmp_path: Path) -> None:
    export_answers(fill(tmp_path / "a", {"1": "theirs", "2": "same"}), tmp_path / "e")
    other = fill(tmp_path / "b", {"1": "ours", "2": "same"})
    done = import_answers(other, tmp_path / "e")
    assert (done.added, done.present, len(done.conflicts)) == (0, 1, 1)
    assert done.conflicts[0]["kept"] and done.conflicts[0]["not_taken"]
    assert texts(other) == {"1": "ours", "2": "same"}


def test_a_damaged_or_newer_or_foreign_export_is_refused_whole(tmp_path: Path) -> None:
    export_answers(fill(tmp_path / "a", {"1": "x"}), tmp_path / "e")
    other = ResponseStore(tmp_path / "b")
    header = json.loads((tmp_path / "e" / "header.json").read_text())
    assert header["kind"] == "llmers answers" and header["format"] == 1

    def refused(error: type[Exception], says: str, document: object = header) -> None:
        (tmp_path / "e" / "header.json").write_text(json.dumps(document))
        with pytest.raises(error, match=says):
            import_answers(other, tmp_path / "e")
        assert not other.files()

    refused(FormatError, "an export of format 2, this version reads", {**header, "format": 2})
    refused(StoreError, "an export of 'x'", {**header, "kind": "x"})
    refused(StoreError, "not the header", {**header, "files": {"answers-00000.parquet": {}}})
    refused(StoreError, "no name of a part", {**header, "files": {"../a": {}}})
    part = tmp_path / "e" / "answers-00000.parquet"
    body = bytearray(part.read_bytes())
    body[20] ^= 4
    part.write_bytes(body)
    refused(StoreError, "size or sha256 differs.*nothing was imported")
    with pytest.raises(StoreError, match="there is no such export"):
        import_answers(other, tmp_path / "nothing")


def test_a_row_that_its_own_checksum_does_not_prove_is_refused(tmp_path: Path) -> None:
    export_answers(fill(tmp_path / "a", {"1": "x", "2": "y"}), tmp_path / "e")
    part = tmp_path / "e" / "answers-00000.parquet"
    rows = pq.read_table(part).to_pylist()
    rows[0]["text"] = "forged"
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), part)
    header = json.loads((tmp_path / "e" / "header.json").read_text())
    header["files"][part.name] |= {
        "bytes": part.stat().st_size, "sha256": transfer._sha256(part.open("rb"))
    }  # fmt: skip
    (tmp_path / "e" / "header.json").write_text(json.dumps(header))
    done = import_answers(ResponseStore(tmp_path / "b"), tmp_path / "e")
    assert (done.added, done.refused) == (1, 1) and "checksum" in done.reasons[0]


def test_an_archive_with_other_members_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        archive.add(tmp_path / "x", "../outside")
    with pytest.raises(StoreError, match="is no part of an export"):
        import_answers(ResponseStore(tmp_path / "b"), tmp_path / "bad.tar")
    (tmp_path / "cut.tar").write_bytes(b"no archive")
    with pytest.raises(StoreError, match="not a readable export"):
        import_answers(ResponseStore(tmp_path / "b"), tmp_path / "cut.tar")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.tar", "cut.tar", "x"]
