"""Memory of a parse does not grow with the file: the peak of new processes at two sizes."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
import raw_files

from llmers_pipelines.data.public import tables
from llmers_pipelines.data.public.fetch import fetch_public
from llmers_pipelines.data.public.tables import Build


def write(raw: Path, rows: int) -> None:
    """A review of 2023 of about 500 bytes, and one product."""
    review = {"rating": 5.0, "title": "t", "text": "word " * 60, "images": [], "asin": "B1",
              "parent_asin": "B1", "user_id": "{}", "timestamp": 1588687728923,
              "helpful_vote": 0, "verified_purchase": True}  # fmt: skip
    line = json.dumps(review)
    data = "".join(line.replace("{}", f"U{n}") + "\n" for n in range(rows))
    raw_files.gz_file(raw / "Software.jsonl.gz", data.encode())
    raw_files.gz_file(raw / "meta_Software.jsonl.gz", b'{"parent_asin": "B1", "title": "x"}\n')


def peak(home: str, root: str, answer) -> None:
    report = fetch_public("amazon-2023", home=home, data_root=root, category="Software",
                          reviews=True, agree=lambda source: False)  # fmt: skip
    # getrusage would also count what the parent held when it started this process
    lines = Path("/proc/self/status").read_text().splitlines()
    answer.send(
        (report["tables"]["interactions"],
         next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")))
    )  # fmt: skip


@pytest.mark.slow
def test_the_peak_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    found = []
    for rows in (60_000, 360_000):  # 30 and 180 MB of text
        root = tmp_path / str(rows)
        write(root / "amazon_2023_software" / "raw", rows)
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        work = context.Process(target=peak, args=(str(root / "home"), str(root), there))
        work.start()
        there.close()
        count, kilobytes = here.recv()
        work.join()
        assert count == rows
        found.append(kilobytes / 1024)
    small, large = found
    assert large < 500 and large - small < 90, found


def test_what_waits_in_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROWS", 10)
    monkeypatch.setattr(tables, "CHARS", 100)
    table = Build(tmp_path / "b").table("t", name="text", n="int")
    waiting = []
    for n in range(100):
        table.add("x" * (60 if n > 50 else 1), n)
        waiting.append(len(table._columns[0]))
    assert max(waiting) == 9 and max(waiting[52:]) <= 1, "fewer rows where they are long"
    table.close()
    assert table.rows == 100
