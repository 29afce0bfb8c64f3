"""Downloads from a loopback server with scripted faults."""

from __future__ import annotations

import hashlib
import io
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_server import Served, Server, serve

from llmers_pipelines.data.public import download as module
from llmers_pipelines.data.public.describe import RawFile
from llmers_pipelines.data.public.download import Download, published_checksum
from llmers_pipelines.data.public.progress import Progress
from llmers_pipelines.data.schema import DataError

CONTENT = hashlib.sha256(b"seed").digest() * 4096  # 128 KiB
NEWER = hashlib.sha256(b"newer").digest() * 4096


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


class Patient(Download):
    """Notes the waits and does not wait."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.waits: list[float] = []
        super().__init__(progress or Progress(shown=False), self.waits.append, timeout=5)


def get(server: Server, folder: Path, loader: Download | None = None, *names: str) -> Path:
    urls = tuple(server.url(n) for n in names or ("a.zip",))
    return (loader or Patient()).fetch(RawFile("a.zip", urls), folder)


def test_a_whole_file_comes_in_one_request(server: Server, tmp_path: Path) -> None:
    server.files["a.zip"] = Served(CONTENT)
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.requests == [("a.zip", "", "")]
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"], "no part is left"


def test_a_dropped_connection_is_resumed_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.files["a.zip"] = Served(CONTENT, faults=["drop:50000", "drop:1000", "status:503"])
    loader = Patient()
    assert get(server, tmp_path, loader).read_bytes() == CONTENT
    assert server.requests == [
        ("a.zip", "", ""), ("a.zip", "bytes=50000-", '"v1"'), ("a.zip", "bytes=51000-", '"v1"'),
        ("a.zip", "bytes=51000-", '"v1"'),
    ]  # fmt: skip
    assert loader.waits == [1.0, 1.0, 7.0], "the third wait is the one that the server asked for"


def test_a_later_call_goes_on_with_the_part(server: Server, tmp_path: Path) -> None:
    server.files["a.zip"] = Served(CONTENT, faults=["drop:50000"] + ["status:500"] * 9)
    with pytest.raises(DataError, match=r"given up after 6 tries .* 50,000 bytes are kept in"):
        get(server, tmp_path)
    server.files["a.zip"].faults.clear()
    server.requests.clear()
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.requests == [("a.zip", "bytes=50000-", '"v1"')]


def test_a_date_of_change_serves_where_there_is_no_etag(server: Server, tmp_path: Path) -> None:
    date = "Fri, 13 Oct 2023 10:00:00 GMT"
    server.files["a.zip"] = Served(CONTENT, etag="", modified=date, faults=["drop:9000"])
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.requests[1] == ("a.zip", "bytes=9000-", date)


def test_a_weak_or_missing_validator_starts_again(server: Server, tmp_path: Path) -> None:
    server.files["a.zip"] = Served(CONTENT, etag='W/"v1"', faults=["drop:9000"])
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.requests == [("a.zip", "", "")] * 2


def test_a_file_that_changed_on_the_server_is_started_again(server: Server, tmp_path: Path) -> None:
    server.files["a.zip"] = Served(CONTENT, faults=["drop:50000"] + ["status:500"] * 5)
    with pytest.raises(DataError):
        get(server, tmp_path)
    server.files["a.zip"] = Served(NEWER, etag='"v2"')
    assert get(server, tmp_path).read_bytes() == NEWER


@pytest.mark.parametrize("size", [20_000, len(CONTENT)])
def test_a_server_that_ignores_the_condition_is_seen_through(
    server: Server, tmp_path: Path, size: int
) -> None:
    """It gives a range of a newer file, or says that there is nothing beyond the part."""
    (tmp_path / "a.zip.part").write_bytes(CONTENT[:50_000])
    url = server.url("a.zip")
    (tmp_path / "a.zip.part.json").write_text(f'{{"url": "{url}", "validator": "\\"v1\\""}}')
    server.files["a.zip"] = Served(NEWER[:size], etag='"v2"', modified='"v1"')
    assert get(server, tmp_path).read_bytes() == NEWER[:size]
    assert [r[1] for r in server.requests] == ["bytes=50000-", ""]


def test_a_server_without_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.files["a.zip"] = Served(CONTENT, ranges=False, faults=["drop:50000"])
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.requests[1] == ("a.zip", "bytes=50000-", '"v1"')


def test_a_whole_part_needs_no_more_bytes(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    url = server.url("a.zip")
    (tmp_path / "a.zip.part.json").write_text(f'{{"url": "{url}", "validator": "\\"v1\\""}}')
    server.files["a.zip"] = Served(CONTENT)
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_a_range_that_begins_elsewhere_is_not_appended(server: Server, tmp_path: Path) -> None:
    server.files["a.zip"] = Served(CONTENT, faults=["drop:50000", "elsewhere"])
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert [r[1] for r in server.requests] == ["", "bytes=50000-", ""]


def test_an_answer_without_length_is_taken_to_its_end(server: Server, tmp_path: Path) -> None:
    server.files["a.zip"] = Served(CONTENT, faults=["no_length"])
    loader = Patient()
    assert get(server, tmp_path, loader).read_bytes() == CONTENT
    assert loader.unchecked == {"a.zip"}, "nobody can tell whether it is whole"


@pytest.mark.parametrize("etag", ['"v1"', ""])
def test_without_length_the_published_size_tells_what_broke_off(
    server: Server, tmp_path: Path, etag: str
) -> None:
    faults = ["no_length:50000", "no_length:1000", "no_length"]
    server.files["a.zip"] = Served(CONTENT, etag=etag, faults=faults)
    loader = Patient()
    file = RawFile("a.zip", (server.url("a.zip"),), size=len(CONTENT))
    assert loader.fetch(file, tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 3 and loader.unchecked == set()
    assert server.requests[1][1] == ("bytes=50000-" if etag else "")


def test_a_file_that_stays_too_short_is_given_up(server: Server, tmp_path: Path) -> None:
    server.files["a.zip"] = Served(CONTENT, etag="", faults=["no_length"] * 9)
    file = RawFile("a.zip", (server.url("a.zip"),), size=len(CONTENT) + 7)
    with pytest.raises(DataError, match=r"131,072 bytes came without an announced length; 131,079"):
        Patient().fetch(file, tmp_path)
    assert not (tmp_path / "a.zip").exists()


def test_one_that_is_larger_than_published_is_unchecked(server: Server, tmp_path: Path) -> None:
    server.files["a.zip"] = Served(CONTENT, faults=["no_length"])
    loader = Patient()
    loader.fetch(RawFile("a.zip", (server.url("a.zip"),), size=9), tmp_path)
    assert loader.unchecked == {"a.zip"}


def test_a_missing_file_fails_at_once_and_the_next_address_is_tried(
    server: Server, tmp_path: Path
) -> None:
    loader = Patient()
    with pytest.raises(DataError, match=r"answers 404 \(there is no such file\)"):
        get(server, tmp_path, loader, "gone.zip")
    assert loader.waits == [] and len(server.requests) == 1
    server.files["b.zip"] = Served(CONTENT)
    assert get(server, tmp_path, loader, "gone.zip", "b.zip").read_bytes() == CONTENT


def test_a_redirect_is_followed_but_never_off_the_web(server: Server, tmp_path: Path) -> None:
    server.files["real.zip"] = Served(CONTENT)
    server.files["a.zip"] = Served(b"", location=server.url("real.zip"))
    assert get(server, tmp_path).read_bytes() == CONTENT
    (tmp_path / "a.zip").unlink()
    server.files["a.zip"].location = "file:///etc/hostname"
    with pytest.raises(DataError, match=r"answers 302 \(it leads to an address that is not foll"):
        get(server, tmp_path)
    assert not (tmp_path / "a.zip").exists()


def test_a_redirect_never_leaves_https() -> None:
    request = urllib.request.Request("https://example.org/a.zip")
    follow = module._Redirects().redirect_request
    assert follow(request, None, 302, "", {}, "https://example.org/b.zip") is not None
    with pytest.raises(DataError, match="not followed: not secure"):
        follow(request, None, 302, "", {}, "http://example.org/b.zip")


def test_nobody_there_is_said_with_the_address(tmp_path: Path) -> None:
    with serve() as gone:
        url = gone.url("a.zip")
    loader = Patient()
    with pytest.raises(DataError, match=r"127\.0\.0\.1.*given up after 6 tries"):
        loader.fetch(RawFile("a.zip", (url,)), tmp_path)
    assert loader.waits == [1, 2, 4, 8, 16]


def test_a_full_disk_is_seen_before_the_download(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["a.zip"] = Served(CONTENT)
    monkeypatch.setattr(module, "SPARE", 1 << 60)
    with pytest.raises(DataError, match=r"needs 131,072 bytes, and .* free; make room"):
        get(server, tmp_path)
    assert not (tmp_path / "a.zip.part").exists()


@pytest.mark.parametrize(
    "line", ["MD5 (a.zip) = {}\n", "{}  a.zip\n", "{}\n"], ids=["bsd", "coreutils", "bare"]
)
def test_the_publishers_checksum_is_read_in_each_of_its_forms(server: Server, line: str) -> None:
    wanted = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    server.files["a.zip.md5"] = Served(line.format(wanted.upper()).encode())
    assert published_checksum(server.url("a.zip.md5")) == wanted
    assert published_checksum(server.url("none.md5")) == ""


def test_progress_is_for_terminals(server: Server, tmp_path: Path) -> None:
    server.files["a.zip"] = Served(CONTENT)
    silent, told = io.StringIO(), io.StringIO()
    get(server, tmp_path, Patient(Progress(silent)))
    assert silent.getvalue() == "", "a StringIO is no terminal"
    get(server, tmp_path, Patient(Progress(told, shown=True)))
    assert re.search(r"\ra\.zip  +\d+% of 131\.1 kB  [\d.]+ .?B/s", told.getvalue())
    assert told.getvalue().endswith("\r"), "the line is cleared at the end"
