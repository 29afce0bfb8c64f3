"""The response store: found by content, first answer wins, one flush lost at most."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmers_pipelines.store import segments
from llmers_pipelines.store.responses import SCHEMA, ResponseStore, response_key

MODEL = "weights:abc"


def fill(
    store: ResponseStore, names: list[str], *, flush_rows: int = 500, **more: str
) -> list[str]:
    with store.writer(flush_rows=flush_rows) as writer:
        return [
            writer.put(text=f"answer to {name}", finish_reason="stop", request=name,
                       identity=MODEL, tokens_in=3, tokens_out=2, **more)
            for name in names
        ]  # fmt: skip


def test_key_is_a_hash_of_identity_and_request() -> None:
    assert response_key("m", "r") == hashlib.sha256(b"m\nr").hexdigest()
    # The border between the two parts is part of the key.
    assert response_key("m", "rs") != response_key("mr", "s")
    with pytest.raises(ValueError, match="line break"):
        response_key("m\nr", "s")


def test_lookup_returns_what_was_put(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path)
    keys = fill(store, ["a", "b", "c"], flush_rows=2, task="item_summaries")
    absent = response_key(MODEL, "d")
    found = ResponseStore(tmp_path).lookup([keys[2], absent, keys[0], keys[0]])
    assert set(found) == {keys[0], keys[2]}
    assert absent not in found
    answer = found[keys[2]]
    assert (answer.text, answer.finish_reason) == ("answer to c", "stop")
    assert (answer.tokens_in, answer.tokens_out, answer.key) == (3, 2, keys[2])
    assert store.known([keys[1], absent]) == {keys[1]}


def test_empty_store_and_no_keys(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path / "none")
    assert len(store.lookup([response_key("m", "r")])) == 0
    assert len(store.lookup([])) == 0
    assert store.stats()["rows"] == 0 and store.verify() == []


def test_lookup_sees_what_other_writers_published_meanwhile(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path)
    (a,) = fill(store, ["a"])
    assert a in store.lookup([a])
    (b,) = fill(ResponseStore(tmp_path), ["b"])
    assert b in store.lookup([a, b])


def test_first_answer_wins_within_and_across_segments(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path)
    with store.writer(flush_rows=2) as writer:
        for text in ("first", "second", "third"):
            key = writer.put(text=text, finish_reason="stop", request="r", identity=MODEL)
    assert store.lookup([key])[key].text == "first"
    store.compact()
    assert store.lookup([key])[key].text == "first"
    assert ResponseStore(tmp_path).lookup([key])[key].text == "first"
    stats = store.stats()
    (group,) = stats.pop("groups")
    assert stats.pop("bytes") == group["bytes"] == store.files()[0].stat().st_size
    assert stats == {
        "segments": 1, "rows": 3, "keys": 1, "tokens_in": 0, "tokens_out": 0, "unreadable": [],
    }  # fmt: skip
    assert (group["answers"], group["characters"]) == (3, len("first" "second" "third" "rrr"))


def test_keys_that_share_their_first_64_bits_are_told_apart(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path)
    (key,) = fill(store, ["a"])
    twin = key[:16] + "0" * 48
    assert twin != key
    assert len(store.lookup([twin])) == 0
    assert set(store.lookup([twin, key])) == {key}


def test_beside_the_key_is_recorded_who_answered(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path)
    keys = fill(store, ["a"], engine="hf", model="tiny", libraries='{"torch": "2"}',
                task="user_profiles", prompt_revision="r1", row_id="u7")  # fmt: skip
    (row,) = store.records(keys)
    kept = {k: row[k] for k in ("engine", "model", "task", "prompt_revision", "row_id", "request")}
    assert kept == {
        "engine": "hf", "model": "tiny", "task": "user_profiles", "prompt_revision": "r1",
        "row_id": "u7", "request": "a",
    }  # fmt: skip
    assert row["created"].tzinfo is not None
    (group,) = store.stats()["groups"]
    told = [group[n] for n in ("model", "task", "prompt_revision", "answers")]
    assert told == ["tiny", "user_profiles", "r1", 1]
    assert store.stats()["tokens_in"] == 3


def test_stats_are_json(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path)
    fill(store, ["a"], model="m", task="t")
    assert json.loads(json.dumps(store.stats()))["keys"] == 1


def test_text_that_utf8_cannot_hold_is_stored_all_the_same(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path)
    with store.writer() as writer:
        key = writer.put(text="lone \ud800 half", finish_reason="stop", request="r", identity="m")
    assert store.lookup([key])[key].text == "lone ? half"
    assert store.verify() == []


def test_an_error_in_the_run_keeps_what_was_paid(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path)
    with pytest.raises(KeyboardInterrupt), store.writer() as writer:
        key = writer.put(text="paid", finish_reason="stop", request="r", identity="m")
        raise KeyboardInterrupt
    assert store.lookup([key])[key].text == "paid"


def test_flush_by_age(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path)
    writer = store.writer(flush_rows=100, flush_seconds=0.0)
    writer.put(text="x", finish_reason="stop", request="r", identity="m")
    assert store.stats()["rows"] == 1
    with pytest.raises(ValueError, match="flush_rows"):
        store.writer(flush_rows=0)


def test_verify_names_a_changed_answer_and_a_wrong_key(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path)
    fill(store, ["a", "b"])
    (path,) = store.files()
    rows = pq.read_table(path).to_pylist()
    assert store.verify() == []
    changed = [rows[0] | {"text": "forged"}, rows[1]]
    pq.write_table(pa.Table.from_pylist(changed, schema=SCHEMA), path)
    (fault,) = ResponseStore(tmp_path).verify()
    assert "row 0" in fault and "checksum" in fault and str(path) in fault
    path.write_bytes(b"PAR1")
    (fault,) = ResponseStore(tmp_path).verify()
    assert "not a readable Parquet segment" in fault


def test_duckdb_reads_the_files(tmp_path: Path) -> None:
    import duckdb

    store = ResponseStore(tmp_path)
    fill(store, ["a", "b", "c"], flush_rows=2)
    files = [str(path) for path in store.files()]
    sql = "select count(*), sum(tokens_out) from read_parquet(?)"
    assert duckdb.execute(sql, [files]).fetchone() == (3, 6)


KILLED = """
import os, signal, sys
from llmers_pipelines.store.responses import ResponseStore
with ResponseStore(sys.argv[1]).writer(flush_rows=10) as writer:
    for n in range(1000):
        if n == 57:
            os.kill(os.getpid(), signal.SIGKILL)
        writer.put(text=str(n), finish_reason="stop", request=str(n), identity="m")
"""


def test_a_killed_writer_loses_at_most_one_flush(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    store = ResponseStore(tmp_path)
    keys = {n: response_key("m", str(n)) for n in range(57)}
    found = store.lookup(keys.values())
    assert [n for n in keys if keys[n] in found] == list(range(50))
    assert store.verify() == []


WRITER = """
import sys
from llmers_pipelines.store.responses import ResponseStore
who = sys.argv[2]
with ResponseStore(sys.argv[1]).writer(flush_rows=7) as writer:
    for n in range(100):
        writer.put(text=who, finish_reason="stop", request=str(n), identity="m")
"""


def test_writers_of_the_same_keys_agree_on_one_answer_for_ever(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), who])
        for who in ("one", "two")
    ]
    store = ResponseStore(tmp_path)
    keys = [response_key("m", str(n)) for n in range(100)]
    seen: dict[str, str] = {}
    while any(w.poll() is None for w in writers):
        now = {key: answer.text for key, answer in store.lookup(keys).items()}
        assert seen.items() <= now.items()  # an answer once read never changes
        seen = now
        time.sleep(0.02)
    assert [w.wait() for w in writers] == [0, 0]
    final = store.lookup(keys)
    assert len(final) == 100
    store.compact(target_rows=50)
    again = ResponseStore(tmp_path).lookup(keys)
    assert {k: a.text for k, a in again.items()} == {k: a.text for k, a in final.items()}
    assert store.verify() == []
    assert store.stats()["rows"] == 200


def test_records_read_only_the_groups_that_hold_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "GROUP_ROWS", 4)
    store = ResponseStore(tmp_path)
    with store.writer(flush_rows=50) as writer:
        keys = [writer.put(text=f"t{i}", finish_reason="stop", request=f"r{i}", identity="m",
                           row_id=str(i)) for i in range(50)]  # fmt: skip
    (segment,) = store.segments.segments()
    whole = store.segments.read(segment)
    assert pq.ParquetFile(segment.path).num_row_groups > 10
    for rows in ([0], [49], [3, 4, 21], list(range(50))):
        assert store.segments.read_rows(segment, np.array(rows)).equals(whole.take(rows))
    wanted = [keys[i] for i in (7, 48, 0)]
    assert {r["row_id"] for r in store.records(wanted)} == {"7", "48", "0"}
    with pytest.raises(FileNotFoundError):
        store.segments.read_rows(segment, np.array([50]))
