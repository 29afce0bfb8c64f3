"""The journal of paid answers: what a killed writer leaves is stored once, by whoever comes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmers_pipelines.store.formats import FormatError, stamp
from llmers_pipelines.store.responses import ResponseStore, Writer, response_key

WRITES = """
import sys
from llmers_pipelines.store.responses import ResponseStore
who, n, flush = sys.argv[2], 0, int(sys.argv[3])
with ResponseStore(sys.argv[1]).writer(flush_rows=flush, journal=True) as writer:
    while True:
        writer.put(text=f"answer {who} {n} " + "x" * 300, finish_reason="stop", identity="m",
                   request=f"question {who} {n}", tokens_in=3, tokens_out=4, row_id=str(n))
        n += 1
        print(n, flush=True)
"""
OPENS = """
import sys
from llmers_pipelines.store.responses import ResponseStore, response_key
keys = [response_key("m", f"question {part.split(':')[0]} {n}") for part in sys.argv[2:]
        for n in range(int(part.split(":")[1]))]
print(len(ResponseStore(sys.argv[1]).lookup(keys)))
"""


def put(writer: Writer, *names: str) -> list[str]:
    return [
        writer.put(text=f"answer to {n}", finish_reason="stop", request=n, identity="m",
                   tokens_in=3, tokens_out=4, engine="openai", model="m", task="t", row_id=n)
        for n in names
    ]  # fmt: skip


def journals(folder: Path) -> list[Path]:
    return sorted(folder.glob("journal-*"))


def left_behind(folder: Path, *names: str) -> Path:
    """Leave a journal as a killed writer does: whole, and held by nobody."""
    writer = ResponseStore(folder).writer(journal=True)
    put(writer, *names)
    (path,) = journals(folder)
    kept = folder / "kept"
    shutil.copyfile(path, kept)
    writer._rows.clear()
    writer.__exit__(None, None, None)
    return kept.rename(path)


def start(folder: Path, who: str, flush: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITES, str(folder), who, str(flush)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def killed(process: subprocess.Popen[str], after: int) -> int:
    """Kill a writer once it has told ``after`` answers; return how many it told in all."""
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= after:
            break
    process.kill()
    told = [line for line in process.stdout.read().splitlines() if line]
    assert process.wait() == -signal.SIGKILL
    return max([after, *map(int, told[:-1])])  # the last line may be half of a number


@pytest.mark.parametrize("flush", [10_000, 7])
def test_nothing_that_was_put_is_lost_by_a_kill(tmp_path: Path, flush: int) -> None:
    told = killed(start(tmp_path, "a", flush), 60)
    store = ResponseStore(tmp_path)
    keys = [response_key("m", f"question a {n}") for n in range(told)]
    found = store.lookup(keys)
    assert len(found) == told and found[keys[59]].text.startswith("answer a 59 ")
    assert (found[keys[0]].tokens_in, found[keys[0]].tokens_out) == (3, 4)
    assert store.verify() == [] and journals(tmp_path) == []
    stats = store.stats()
    assert stats["rows"] == stats["keys"] >= told, "what was flushed before is not stored twice"


def test_many_killed_writers_and_many_who_open_at_once(tmp_path: Path) -> None:
    writers = [start(tmp_path, who, 10_000) for who in "abc"]
    for process in writers:  # all have opened the store before the first one dies
        assert process.stdout is not None and process.stdout.readline() == "1\n"
    told = [killed(process, 20) for process in writers]
    assert len(journals(tmp_path)) == 3
    asked = [f"{who}:{n}" for who, n in zip("abc", told, strict=True)]
    command = [sys.executable, "-c", OPENS, str(tmp_path), *asked]
    opened = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert {process.communicate()[0].strip() for process in opened} == {str(sum(told))}
    stats = ResponseStore(tmp_path).stats()
    assert stats["rows"] == stats["keys"] >= sum(told) and journals(tmp_path) == []


def test_the_journal_of_a_living_writer_is_its_own(tmp_path: Path) -> None:
    with ResponseStore(tmp_path).writer(journal=True) as writer:
        first = put(writer, "a", "b")
        (path,) = journals(tmp_path)
        before = path.read_bytes()
        assert ResponseStore(tmp_path).lookup(first) == {}
        assert path.read_bytes() == before and before.count(b"\n") == 3
        writer.flush()
        assert set(ResponseStore(tmp_path).lookup(first)) == set(first)
        assert path.read_bytes().count(b"\n") == 1, "what is stored is not noted any longer"
        second = put(writer, "c")
    assert journals(tmp_path) == [] and set(ResponseStore(tmp_path).lookup(second)) == set(second)


def test_a_writer_that_puts_nothing_or_costs_nothing_leaves_no_journal(tmp_path: Path) -> None:
    with ResponseStore(tmp_path / "a").writer(journal=True):
        pass
    assert not (tmp_path / "a").exists()
    with ResponseStore(tmp_path / "b").writer() as writer:
        put(writer, "a")
        assert journals(tmp_path / "b") == []


@pytest.mark.parametrize(("harm", "whole", "torn"), [
    (lambda d: d[:-5], 2, 1), (lambda d: d + b"00000000 [", 3, 1),
    (lambda d: d + b"\xff\x00" * 90, 3, 1), (lambda d: b"", 0, 0),
    (lambda d: d.replace(b"answer to b", b"ANSWER to b"), 2, 1),
    (lambda d: d.replace(b"journal 1", b"journal 3"), 3, 0),
], ids=["cut", "begun", "noise", "empty", "changed", "head"])  # fmt: skip
def test_torn_lines_are_counted_and_cost_no_other(
    tmp_path: Path,
    harm: Callable[[bytes], bytes],
    whole: int,
    torn: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = left_behind(tmp_path, "a", "b", "c")
    path.write_bytes(harm(path.read_bytes()))
    store = ResponseStore(tmp_path)
    assert len(store.lookup([response_key("m", n) for n in "abc"])) == whole
    assert journals(tmp_path) == [] and store.verify() == []
    assert ("1 lines were torn" in caplog.text) == (torn == 1)


def test_every_text_outlives_a_kill(tmp_path: Path) -> None:
    odd = "caf\u00e9 \u2028 \U0001f600 \x00 \x7f \n \r \" \\ </a>"
    left_behind(tmp_path, odd, "plain")
    store = ResponseStore(tmp_path)
    found = store.lookup([response_key("m", odd), response_key("m", "plain")])
    assert found[response_key("m", odd)].text == f"answer to {odd}" and len(found) == 2
    (record,) = store.records([response_key("m", odd)])
    assert record["row_id"] == record["request"] == odd and store.verify() == []


def test_a_lone_surrogate_is_noted_too_and_refused_with_its_reason(tmp_path: Path) -> None:
    writer = ResponseStore(tmp_path).writer(journal=True)
    put(writer, "a")
    writer.put(text="answer", finish_reason="stop", request="b", identity="m", model="\ud800")
    (path,) = journals(tmp_path)
    kept = path.rename(tmp_path / "kept")
    writer._rows.clear()
    writer.__exit__(None, None, None)
    kept.rename(path)
    store = ResponseStore(tmp_path)
    assert set(store.lookup([response_key("m", n) for n in "ab"])) == {response_key("m", "a")}
    assert "\\ud800" in (tmp_path / "refused.jsonl").read_text()


def test_an_answer_that_another_run_stored_meanwhile_stands(tmp_path: Path) -> None:
    path = left_behind(tmp_path, "a", "b")
    aside = path.rename(tmp_path / "aside")
    with ResponseStore(tmp_path).writer() as writer:
        key = writer.put(text="asked again", finish_reason="stop", request="a", identity="m")
    aside.rename(path)
    store = ResponseStore(tmp_path)
    assert store.lookup([key])[key].text == "asked again" and store.stats()["rows"] == 2


def test_a_newer_journal_is_left_alone_and_nothing_is_asked_meanwhile(tmp_path: Path) -> None:
    path = left_behind(tmp_path, "a")
    newer = path.read_bytes().replace(stamp(1).encode(), stamp(9).encode())
    path.write_bytes(newer)
    other = left_behind(tmp_path / "other", "b").rename(tmp_path / f"journal-{'f' * 32}.jsonl")
    store = ResponseStore(tmp_path)
    assert store.stats()["rows"] == 1 and store.verify() == [] and not other.exists()
    with pytest.raises(FormatError, match="a journal of format 9"):
        store.lookup([response_key("m", "b")])
    with pytest.raises(FormatError, match="a journal of format 9"):
        store.known([response_key("m", "a")])
    assert path.read_bytes() == newer


def test_a_full_disk_flushes_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from llmers_pipelines.store.journal import Journal

    store = ResponseStore(tmp_path)
    with store.writer(journal=True) as writer:
        keys = put(writer, "a", "b")
        with monkeypatch.context() as patch:

            def full(*_: object) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr(Journal, "append", full)
            keys += put(writer, "c")
        assert set(ResponseStore(tmp_path).lookup(keys)) == set(keys)
        keys += put(writer, *map(str, range(10)))
        assert set(ResponseStore(tmp_path).lookup(keys)) == set(keys), "small flushes from then on"
    assert "No space left" in caplog.text and journals(tmp_path) == []


def test_a_line_that_is_half_written_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmers_pipelines.store.journal import Journal

    journal = Journal.begin(tmp_path)
    with ResponseStore(tmp_path).writer() as writer:
        put(writer, "a", "b")
        one, two = writer._rows
        writer._rows.clear()
    journal.append(one)

    class Half:
        def __init__(self, file: object) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            return self.file.write(data[: len(data) // 2])  # type: ignore[attr-defined]

        def truncate(self, size: int) -> None:
            self.file.truncate(size)  # type: ignore[attr-defined]

    whole, journal._file = journal._file, Half(journal._file)  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space"):
        journal.append(two)
    journal._file = whole
    journal.append(two)
    assert journal.path.read_bytes().count(b"\n") == 3
    journal.close(stored=False)
    assert len(ResponseStore(tmp_path).lookup([one[0], two[0]])) == 2
