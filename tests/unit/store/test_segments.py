"""Segments: all or nothing, in order of publication, merged without losing or doubling a row."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from llmers_pipelines.store.segments import STALE_SECONDS, SegmentFolder, StoreError

SCHEMA = pa.schema([("n", pa.int64()), ("word", pa.string())])


def rows(*numbers: int) -> pa.Table:
    return pa.table({"n": list(numbers), "word": [f"w{n}" for n in numbers]}, schema=SCHEMA)


def read(folder: SegmentFolder) -> list[int]:
    return [n for _, table in folder.read_all() for n in table["n"].to_pylist()]


def test_an_absent_folder_has_no_segments(tmp_path: Path) -> None:
    assert SegmentFolder(tmp_path / "none", SCHEMA).segments() == []


def test_rows_come_back_in_order_of_publication(tmp_path: Path) -> None:
    folder = SegmentFolder(tmp_path, SCHEMA)
    for n in (3, 1, 2):
        folder.publish(rows(n, n * 10))
    assert read(folder) == [3, 30, 1, 10, 2, 20]
    assert not list(tmp_path.glob(".writing-*"))


def test_a_file_that_is_still_written_is_invisible(tmp_path: Path) -> None:
    folder = SegmentFolder(tmp_path, SCHEMA)
    folder.publish(rows(1))
    (tmp_path / ".writing-abc.tmp").write_bytes(b"PAR1 half a segm")
    (tmp_path / "notes.txt").write_text("not ours")
    assert read(folder) == [1]


def test_a_broken_segment_is_named_with_the_mend(tmp_path: Path) -> None:
    folder = SegmentFolder(tmp_path, SCHEMA)
    segment = folder.publish(rows(1))
    segment.path.write_bytes(segment.path.read_bytes()[:20])
    with pytest.raises(StoreError, match=r"0000000001-0000000001\.parquet.*moves it away"):
        read(folder)


def test_a_column_that_an_older_segment_lacks_is_null(tmp_path: Path) -> None:
    SegmentFolder(tmp_path, SCHEMA).publish(rows(1))
    newer = SegmentFolder(tmp_path, SCHEMA.append(pa.field("more", pa.float64())))
    (_, table), = newer.read_all()
    assert table.to_pylist() == [{"n": 1, "word": "w1", "more": None}]


def test_merge_keeps_every_row_in_its_place(tmp_path: Path) -> None:
    folder = SegmentFolder(tmp_path, SCHEMA)
    for n in range(7):
        folder.publish(rows(n))
    assert folder.merge(target_rows=3) == 4
    assert [s.path.name for s in folder.segments()] == [
        "0000000001-0000000003.parquet",
        "0000000004-0000000006.parquet",
        "0000000007-0000000007.parquet",
    ]
    folder.publish(rows(7))
    assert read(folder) == list(range(8))
    assert folder.segments()[-1].first == 8


def test_parts_left_behind_by_a_killed_merge_are_not_read_twice(tmp_path: Path) -> None:
    folder = SegmentFolder(tmp_path, SCHEMA)
    first = folder.publish(rows(1)).path
    kept = first.read_bytes()
    folder.publish(rows(2))
    folder.merge()
    first.write_bytes(kept)  # as if the merge had died before it removed its parts
    assert read(folder) == [1, 2]
    folder.merge()
    assert not first.exists()


def test_a_writer_whose_number_a_merge_freed_publishes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = SegmentFolder(tmp_path, SCHEMA)
    folder.publish(rows(1))
    folder.publish(rows(2))
    stale = folder.segments()[:1]  # what a slow writer saw: next number 2
    folder.merge()  # 1-2 in place of both, number 2 is free again
    real = SegmentFolder.segments
    seen = iter([stale])
    monkeypatch.setattr(SegmentFolder, "segments", lambda self: next(seen, None) or real(self))
    assert folder.publish(rows(3)).first == 3
    assert read(folder) == [1, 2, 3]


def test_a_reader_survives_a_merge_between_listing_and_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = SegmentFolder(tmp_path, SCHEMA)
    for n in range(4):
        folder.publish(rows(n))
    old = folder.segments()
    folder.merge()
    real = SegmentFolder.segments
    seen = iter([old])
    monkeypatch.setattr(SegmentFolder, "segments", lambda self: next(seen, None) or real(self))
    assert read(folder) == [0, 1, 2, 3]


def test_without_hard_links_it_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    folder = SegmentFolder(tmp_path, SCHEMA)
    (tmp_path / "0000000002.claim").touch()  # another writer is about to publish number 2
    for n in range(3):
        folder.publish(rows(n))
    assert [s.first for s in folder.segments()] == [1, 3, 4]
    assert read(folder) == [0, 1, 2]
    assert not list(tmp_path.glob(".writing-*"))
    folder.merge()  # never across the gap: number 2 would be hidden when it comes
    assert [(s.first, s.last) for s in folder.segments()] == [(1, 1), (3, 4)]
    assert read(folder) == [0, 1, 2]


def test_merge_sweeps_what_dead_writers_left(tmp_path: Path) -> None:
    folder = SegmentFolder(tmp_path, SCHEMA)
    folder.publish(rows(1))
    old, new = tmp_path / ".writing-old.tmp", tmp_path / ".writing-new.tmp"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, times=(time.time() - STALE_SECONDS - 5,) * 2)
    folder.merge()
    assert not old.exists() and new.exists()


WRITER = """
import sys, pyarrow as pa
from llmers_pipelines.store.segments import SegmentFolder
schema = pa.schema([("n", pa.int64()), ("word", pa.string())])
folder = SegmentFolder(sys.argv[1], schema)
start = int(sys.argv[2])
for n in range(start, start + 15):
    folder.publish(pa.table({"n": [n, n], "word": ["a", "b"]}, schema=schema))
    if n % 5 == 4:
        folder.merge(target_rows=16)
"""


def test_many_processes_write_and_merge_at_once(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(start)])
        for start in (0, 100, 200)
    ]
    folder = SegmentFolder(tmp_path, SCHEMA)
    seen: set[int] = set()
    while any(w.poll() is None for w in writers):
        now = read(folder)
        assert len(now) % 2 == 0  # never one row of a pair
        assert seen <= set(now)  # what was once visible stays
        seen = set(now)
        time.sleep(0.02)
    assert [w.wait() for w in writers] == [0, 0, 0]
    found = read(folder)
    expected = [n for start in (0, 100, 200) for n in range(start, start + 15)]
    assert sorted(set(found)) == expected
    for start in (0, 100, 200):  # each writer's own order is kept
        own = [n for n in dict.fromkeys(found) if start <= n < start + 100]
        assert own == sorted(own)
