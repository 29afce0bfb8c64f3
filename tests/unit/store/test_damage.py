"""Flipped bits: found or harmless, never another text; what is good stays, the rest is new."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmers_pipelines.llm.fake import FakeEngine
from llmers_pipelines.llm.runner import run_task
from llmers_pipelines.prices import Price
from llmers_pipelines.prompts.item_knowledge import ItemKnowledge
from llmers_pipelines.store.audit import audit
from llmers_pipelines.store.fingerprints import (
    differences,
    fingerprint,
    read_fingerprint,
    write_fingerprint,
)
from llmers_pipelines.store.formats import FormatError, StoreError, sealed, stamp, stamped
from llmers_pipelines.store.responses import ResponseStore, _decoded, response_key
from llmers_pipelines.store.rows import SCHEMA, old_checksum
from llmers_pipelines.store.salvage import examine, quarantine
from llmers_pipelines.store.segments import SegmentFolder
from llmers_pipelines.store.vectors import VectorStore, text_keys

BOOKS = [{"item_id": f"b{n}", "title": f"The Lamp {n}", "category": "novel"} for n in range(5)]


def fill(folder: Path, names: list[str], flush_rows: int = 500) -> list[str]:
    with ResponseStore(folder).writer(flush_rows=flush_rows) as writer:
        return [
            writer.put(text=f"answer to {name} " + "word " * n, finish_reason="stop",
                       request=f"what is {name}", identity="m", tokens_in=3, tokens_out=n,
                       model="tiny", task="t", row_id=name)
            for n, name in enumerate(names)
        ]  # fmt: skip


def flipped(body: bytes, at: int, bit: int) -> bytes:
    out = bytearray(body)
    out[at] ^= 1 << bit
    return bytes(out)


def test_a_damaged_count_of_rows_is_no_merge_that_replaced_the_file(tmp_path: Path) -> None:
    keys = fill(tmp_path, list("abcdefghij"))
    store = ResponseStore(tmp_path)
    truth = {r["key"]: r for r in store.records(keys)}
    (path,) = store.files()
    (segment,) = store.segments.segments()
    whole, met = path.read_bytes(), 0
    for at in range(len(whole) - 170, len(whole) - 150):  # the count of the one row group
        for bit in range(8):
            path.write_bytes(flipped(whole, at, bit))
            found = {r["key"]: r for r in ResponseStore(tmp_path).records(keys)}
            assert found.keys() <= truth.keys(), f"byte {at}, bit {bit}"
            try:
                store.segments.read_rows(segment, np.arange(10))
            except StoreError as error:
                if "its row groups have" in str(error):
                    met += 1
                    assert found == truth, f"byte {at}, bit {bit}"
    assert met  # or the count lies elsewhere now


def test_a_row_with_a_time_that_no_calendar_has_is_left_out() -> None:
    times = pa.array([0, 2**62, 5]).cast(pa.timestamp("us", tz="UTC"))
    rows = _decoded(pa.table({"key": ["a", "b", "c"], "created": times}))
    assert [row and row["key"] for row in rows] == ["a", None, "c"]


# Every byte is covered by the seven starts together; each run takes other bits of its bytes.
@pytest.mark.parametrize("start", [0, 3])
def test_no_flipped_bit_makes_another_text(tmp_path: Path, start: int) -> None:
    keys = fill(tmp_path, list("abcdefghij"))
    store = ResponseStore(tmp_path)
    truth = store.lookup(keys)
    records = {r["key"]: r for r in store.records(keys)}
    (path,) = store.files()
    whole = path.read_bytes()
    found = 0
    for at in range(start, len(whole), 7):
        path.write_bytes(flipped(whole, at, at % 8))
        store = ResponseStore(tmp_path)
        got = store.lookup(keys)
        assert got.items() <= truth.items(), f"byte {at}: another answer"
        faults = list(examine(store.segments))
        found += bool(faults)
        if not faults:  # then the bit is harmless: everything reads as it was written
            assert got == truth, f"byte {at}: rows vanished unseen"
            assert {r["key"]: r for r in store.records(keys)} == records, f"byte {at}"
        else:
            ((_, damage, good),) = faults
            assert damage.lines() and set(good["key"].to_pylist()) >= set(got), f"byte {at}"
    assert found > len(whole) / 14, "most bits of a segment carry something"


def test_good_rows_stay_and_the_bad_ones_are_set_aside(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path / "responses")
    keys = fill(tmp_path / "responses", list("abcdefgh"))
    truth = store.lookup(keys)
    (path,) = store.files()
    table = pq.read_table(path).to_pylist()
    table[2]["text"] = "forged"  # valid Parquet, so that the row's checksum alone can tell
    table[5]["model"] = "another model"
    pq.write_table(pa.Table.from_pylist(table, schema=SCHEMA), path)
    ((segment, damage, good),) = examine(store.segments)
    assert [(x.row, x.key) for x in damage.lost] == [(2, table[2]["key"])]
    assert damage.emptied == 1 and len(good) == 7
    aside = quarantine(store.segments, segment, damage, good, tmp_path / "quarantine")
    reason = json.loads((aside / "reason.json").read_text())
    assert reason["lost"][0]["reason"] == "the row's checksum does not match its content"
    assert pq.read_table(aside / path.name).num_rows == 8
    assert store.verify() == [] and ResponseStore(tmp_path / "responses").verify() == []
    del truth[table[2]["key"]]
    assert store.lookup(keys) == truth  # the reader that was open before sees the mended file
    (row,) = store.records([table[5]["key"]])
    assert row["model"] is None and row["request"] == table[5]["request"]


def test_of_a_page_that_cannot_be_decoded_other_row_groups_stay(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("llmers_pipelines.store.segments.GROUP_ROWS", 4)
    store = ResponseStore(tmp_path)
    keys = fill(tmp_path, [f"n{i}" for i in range(12)])
    (path,) = store.files()
    column = pq.read_metadata(path).row_group(1).column(SCHEMA.names.index("text"))
    body = bytearray(path.read_bytes())
    start, end = column.data_page_offset, column.data_page_offset + column.total_compressed_size
    body[start:end] = bytes(end - start)
    path.write_bytes(body)
    found = ResponseStore(tmp_path).lookup(keys)
    assert len(found) == 8
    ((_, damage, good),) = examine(store.segments)
    assert len(good) == 8 and {x.row for x in damage.lost} == {4, 5, 6, 7}
    assert {x.key for x in damage.lost} == set(keys) - set(found)
    assert "8 answers are whole, 4 are lost" in damage.lines()[0]
    assert damage.mend == "the lost answers are asked again by the next run of the assets"


def test_where_every_answer_is_whole_nothing_is_said_to_be_lost(tmp_path: Path) -> None:
    fill(tmp_path, [f"n{i}" for i in range(12)])
    (path,) = ResponseStore(tmp_path).files()
    column = pq.read_metadata(path).row_group(0).column(SCHEMA.names.index("model"))
    body = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    body[start + column.total_compressed_size - 1] ^= 8
    path.write_bytes(body)
    ((_, damage, good),) = examine(ResponseStore(tmp_path).segments)
    assert len(good) == 12 and not damage.lost
    assert all("all 12 answers are whole, none is lost" in line for line in damage.lines())
    assert damage.mend.startswith("nothing is asked again")


def test_a_run_over_a_damaged_segment_asks_the_lost_rows_again(tmp_path: Path, caplog) -> None:
    store = ResponseStore(tmp_path)
    texts = {b["item_id"]: f"{b['title']} tells of a keeper who lights it." for b in BOOKS}
    first = run_task(ItemKnowledge(), BOOKS, FakeEngine(texts), store, progress=False)
    (path,) = store.files()
    rows = pq.read_table(path).to_pylist()
    rows[1]["text"] = "The Lamp 1 tells of something that was never said."
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
    again = run_task(ItemKnowledge(), BOOKS, FakeEngine(texts), ResponseStore(tmp_path),
                     progress=False)  # fmt: skip
    assert again.rows["text"].to_pylist() == first.rows["text"].to_pylist()
    assert (again.counts["llm_calls"], again.counts["cache_hits"]) == (1, 4)
    assert "is damaged" in caplog.text and path.name in caplog.text
    third = run_task(ItemKnowledge(), BOOKS, FakeEngine(texts), ResponseStore(tmp_path),
                     progress=False)  # fmt: skip
    assert third.counts["llm_calls"] == 0, "the answer that was asked again is found"
    path.write_bytes(b"PAR1 and nothing else")
    fourth = run_task(ItemKnowledge(), BOOKS, FakeEngine(texts), ResponseStore(tmp_path),
                      progress=False)  # fmt: skip
    assert fourth.rows["text"].to_pylist() == first.rows["text"].to_pylist()


def old_segment(folder: Path, texts: dict[str, str]) -> Path:
    """Write a segment as format 1 did: no marks, one checksum, no second number."""
    rows = []
    for request, text in texts.items():
        key = response_key("m", request)
        row = {"key": key, "key64": int(key[:16], 16), "text": text, "finish_reason": "stop",
               "tokens_in": 3, "tokens_out": 2, "request": request, "identity": "m",
               "model": "tiny"}  # fmt: skip
        rows.append({**row, "checksum": old_checksum(row)})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "0000000001-0000000001.parquet"
    schema = pa.schema([f for f in SCHEMA if f.name != "low64"])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")
    return path


def test_answers_of_format_1_are_read_proven_and_merged(tmp_path: Path) -> None:
    path = old_segment(tmp_path, {"a": "one", "b": "two"})
    (c,) = fill(tmp_path, ["c"])
    store = ResponseStore(tmp_path)
    keys = [response_key("m", r) for r in "ab"]
    assert [store.lookup([*keys, c])[k].text for k in keys] == ["one", "two"]
    assert store.known([*keys, c, "0" * 64]) == {*keys, c} and store.verify() == []
    store.compact()
    assert len(store.files()) == 1 and store.verify() == []
    assert ResponseStore(tmp_path).lookup(keys)[keys[1]].text == "two"
    store.files()[0].unlink()
    old_segment(tmp_path, {"a": "one", "b": "two"})
    rows = pq.read_table(path).to_pylist()
    rows[0]["text"] = "forged"
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path)
    store = ResponseStore(tmp_path)
    assert set(store.lookup(keys)) == {keys[1]} and len(store.verify()) == 1


def test_the_present_form_is_marked_and_a_newer_one_is_refused(tmp_path: Path) -> None:
    """The fixture is what the present code writes: the marks are part of the form."""
    store = ResponseStore(tmp_path)
    keys = fill(tmp_path, ["a", "b"])
    marks = pq.read_metadata(store.files()[0]).metadata
    assert {k: marks[k] for k in (b"llmers.format", b"llmers.rows")} == {
        b"llmers.format": b"2-1ad5be0d", b"llmers.rows": b"2-1ad5be0d"
    }  # fmt: skip
    newer = SegmentFolder(tmp_path, SCHEMA, version=3)
    newer.publish(store.segments.read(store.segments.segments()[0]))
    before = [p.read_bytes() for p in store.files()]
    for work in (lambda: store.lookup(keys), store.verify, store.stats, store.compact,
                 lambda: store.known(keys)):  # fmt: skip
        with pytest.raises(FormatError, match=r"format 3, this version reads formats up to 2"):
            work()
    assert [p.read_bytes() for p in store.files()] == before


def test_a_stamp_never_turns_into_another_version() -> None:
    assert stamped(stamp(2)) == 2 and stamped(None) == 1
    text = stamp(2).encode()
    for at in range(len(text)):
        for bit in range(8):
            assert stamped(flipped(text, at, bit).decode("latin-1")) == 1


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)


def test_no_flipped_bit_makes_another_vector(tmp_path: Path) -> None:
    store, keys, truth = VectorStore(tmp_path), text_keys("e", map(str, range(6))), vectors(6)
    folder = store.space("e", 4).append(keys, truth)
    for path in folder.iterdir():
        whole = path.read_bytes()
        for at in range(0, len(whole), 2):
            path.write_bytes(flipped(whole, at, at // 2 % 8))
            found, got = VectorStore(tmp_path).space("e", 4).lookup(keys)
            assert (got[found] == truth[found]).all(), f"{path.name}, byte {at}"
            assert store.verify() or found.all(), f"{path.name}, byte {at}: vanished unseen"
        path.write_bytes(whole)


def test_good_vectors_of_a_damaged_segment_stay(tmp_path: Path) -> None:
    store, keys, truth = VectorStore(tmp_path / "v"), text_keys("e", "abc"), vectors(3)
    folder = store.space("e", 4).append(keys, truth)
    body = (folder / "vectors.npy").read_bytes()
    (folder / "vectors.npy").write_bytes(flipped(body, len(body) - 3, 1))
    space = store.space("e", 4)
    assert space.lookup(keys)[0].sum() == 2
    space.append(keys, truth)  # what was encoded again
    for reader in (space, store.space("e", 4)):
        found, got = reader.lookup(keys)
        assert found.all() and (got == truth).all()
    (fault,) = store.verify(mend=True, into=tmp_path / "aside")
    assert fault.rows == 1 and list((tmp_path / "aside").rglob("vectors.npy"))
    assert store.verify() == [] and store.space("e", 4).lookup(keys)[0].all()


def test_vectors_of_older_and_newer_forms(tmp_path: Path) -> None:
    store, keys = VectorStore(tmp_path), text_keys("e", "ab")
    folder = store.space("e", 4).append(keys, vectors(2))
    (folder / "sums.npy").unlink()
    assert store.verify() == [] and store.space("e", 4).lookup(keys)[0].all()
    body = (folder / "vectors.npy").read_bytes()
    (folder / "vectors.npy").write_bytes(flipped(body, len(body) - 2, 4))
    assert not store.space("e", 4).lookup(keys)[0].any(), "proven by the hash in its name"
    meta = folder.parent / "space.json"
    space = {"identity": "e", "dim": 4}
    for old in (space, {**space, "format": 2}):
        meta.write_text(json.dumps(old))
        assert store.open(meta)[1].dim == 4, "written by an older version"
    meta.write_text(json.dumps(sealed(space, 9)))
    with pytest.raises(FormatError, match="a vector space of format 9"):
        store.space("e", 4)
    meta.write_text('{"identity": "f", "dim": 4}')
    with pytest.raises(StoreError, match="not that of its folder"):
        store.space("e", 4)


def test_lists_of_files_find_every_kind_of_change(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(b"aaaa")
    (tmp_path / "b").write_bytes(b"bbbb")
    files = fingerprint(tmp_path)
    assert differences(tmp_path, files) == [] and set(files) == {"b", "deep/a"}
    (tmp_path / "deep" / "a").write_bytes(b"aaab")
    assert "not what was written" in differences(tmp_path, files)[0]
    (tmp_path / "b").write_bytes(b"b")
    assert "1 bytes, 4 were written" in differences(tmp_path, files)[0]
    (tmp_path / "b").unlink()
    assert differences(tmp_path, files)[0].endswith("b: missing")
    write_fingerprint(tmp_path)
    listed = read_fingerprint(tmp_path)
    assert listed is not None and differences(tmp_path, listed) == [] and set(listed) == {"deep/a"}
    assert read_fingerprint(tmp_path / "deep") is None
    old = {"format": 1, "files": listed}
    (tmp_path / "files.json").write_text(json.dumps(old))
    assert read_fingerprint(tmp_path) == listed, "written by an older version"
    (tmp_path / "files.json").write_text(json.dumps(sealed({"files": {}}, 7)))
    with pytest.raises(FormatError, match="a cell of format 7"):
        read_fingerprint(tmp_path)


def test_the_cost_of_lost_answers_by_hand(tmp_path: Path) -> None:
    keys = fill(tmp_path / "responses", list("abc"))
    store = ResponseStore(tmp_path / "responses")
    (path,) = store.files()
    rows = sorted(pq.read_table(path).to_pylist(), key=lambda r: r["tokens_out"])
    rows[2]["text"], rows[1]["text"] = "forged", "forged"
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
    with store.writer() as writer:  # the second was answered once more: nothing to pay for it
        writer.put(text="again", finish_reason="stop", request="what is b", identity="m")
    report = audit(tmp_path, {"tiny": Price(input=10.0, output=100.0)})
    cost = report.regeneration["answers"]
    assert (cost["calls"], cost["tokens_in"], cost["tokens_out"]) == (1, 3, 2)
    assert cost["money"] == {"amount": {"USD": pytest.approx(230e-6)}, "without_price": []}
    assert len(report.faults) == 2 and not report.faults[0].aside
    assert set(store.lookup(keys)) == set(keys[:2])
