"""Archives as bounded streams: nothing is unpacked, bombs and damage are refused."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import pytest
import raw_files

from llmers_pipelines.data.public import archives
from llmers_pipelines.data.public.archives import local_file, open_raw
from llmers_pipelines.data.public.lines import read_blocks, read_lines
from llmers_pipelines.data.schema import DataError


def content(raw: Path, name: str, member: str = "") -> bytes:
    with open_raw(raw, name, member) as stream:
        return stream.read()


def test_a_member_is_found_by_its_name_in_any_folder(tmp_path: Path) -> None:
    members = {"ml/u.data": b"right", "old/u.data": b"wrong", "__MACOSX/ml/u.data": b"junk"}
    raw_files.zip_file(tmp_path / "a.zip", members | {"x.csv": b"x"})
    assert content(tmp_path, "a.zip", "ml/u.data") == b"right"
    assert content(tmp_path, "a.zip", "other/x.csv") == b"x"
    with pytest.raises(DataError, match=r"does not hold 'y.csv'; it holds 'ml/u.data'"):
        content(tmp_path, "a.zip", "y.csv")


def test_an_unpacked_copy_and_a_plain_one_do_as_well(tmp_path: Path) -> None:
    (tmp_path / "a" / "ml").mkdir(parents=True)
    (tmp_path / "a" / "ml" / "u.data").write_bytes(b"plain")
    assert content(tmp_path, "a.zip", "ml/u.data") == b"plain"
    (tmp_path / "meta.json").write_bytes(b"{}")
    assert content(tmp_path, "meta.json.gz") == b"{}"
    assert local_file(tmp_path, "none.gz") is None
    with pytest.raises(DataError, match=r"lacks u\.item"):
        content(tmp_path, "a.zip", "ml/u.item")


def test_no_path_of_an_archive_is_ever_written(tmp_path: Path) -> None:
    raw = tmp_path / "data" / "raw"
    raw.mkdir(parents=True)
    evil = {"../../evil.txt": b"no", "/tmp-evil/x": b"no", "ok/u.data": b"yes",
            "..\\..\\evil2.txt": b"no"}  # fmt: skip
    raw_files.zip_file(raw / "a.zip", evil)
    (raw / "b.tar").write_bytes(raw_files.tar_bytes(evil))
    before = sorted(p for p in tmp_path.rglob("*"))
    assert content(raw, "a.zip", "ok/u.data") == b"yes"
    assert content(raw, "b.tar", "ok/u.data") == b"yes"
    assert sorted(p for p in tmp_path.rglob("*")) == before


def test_what_expands_too_far_is_not_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 1 << 20)
    zeros = bytes(16 << 20)  # shrinks by a thousand
    raw_files.zip_file(tmp_path / "bomb.zip", {"u.data": zeros})
    raw_files.gz_file(tmp_path / "bomb.gz", zeros)
    raw_files.zip_file(tmp_path / "nested.zip", {"d.tar": raw_files.tar_bytes({"u.data": zeros})})
    for name, member in (("bomb.zip", "u.data"), ("bomb.gz", ""), ("nested.zip", "u.data")):
        given = 0
        with (
            pytest.raises(DataError, match=r"expands to more than [\d,]+ bytes"),
            open_raw(tmp_path, name, member) as stream,
        ):
            while data := stream.read(1 << 16):
                given += len(data)
        assert given < 8 << 20


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    many = {f"{i}.txt": b"" for i in range(5)}
    raw_files.zip_file(tmp_path / "a.zip", many)
    (tmp_path / "b.tar").write_bytes(raw_files.tar_bytes(many))
    for name in ("a.zip", "b.tar"):
        with pytest.raises(DataError, match="names"):
            content(tmp_path, name, "none")


@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_damage_is_told(tmp_path: Path, how: str) -> None:
    plain = "".join(f"{i},{i * 7919 % 1000}\n" for i in range(20_000)).encode()

    def spoil(data: bytes) -> bytes:
        middle = len(data) // 2
        return data[:middle] if how == "cut" else data[:middle] + b"\x00\xff" + data[middle + 2 :]

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("u.data", plain)
    (tmp_path / "a.zip").write_bytes(spoil(packed.getvalue()))
    (tmp_path / "a.gz").write_bytes(spoil(gzip.compress(plain)))
    for name, member in (("a.zip", "u.data"), ("a.gz", "")):
        with pytest.raises(DataError, match=r"is damaged .*; remove it and fetch it again"):
            content(tmp_path, name, member)


def test_lines_are_bounded_and_numbered() -> None:
    stream = io.BytesIO(b"\xef\xbb\xbfone\r\n" + b"x" * 50 + b"\nthree\n\nlast")
    found = [(n.number, n.data[:5], n.whole) for n in read_lines(stream, limit=20)]
    assert found == [(1, b"one", True), (2, b"xxxxx", False), (3, b"three", True), (4, b"", True),
                     (5, b"last", True)]  # fmt: skip


@pytest.mark.parametrize("size", [3, 7, 1000])
def test_blocks_hold_whole_lines(size: int) -> None:
    text = b"a,1\nbb,22\n\nccc,333"
    blocks = list(read_blocks(io.BytesIO(text), size=size))
    assert b"".join(blocks) == text + b"\n"
    assert all(b.endswith(b"\n") for b in blocks)
    cut = list(read_blocks(io.BytesIO(b"y" * 40 + b"\nz\n"), size=8, limit=16))
    assert max(map(len, cut)) <= 32 and cut[-1].endswith(b"z\n")
