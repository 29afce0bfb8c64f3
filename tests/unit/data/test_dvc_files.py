"""Files that DVC tracks: their recorded md5 is their version while it is true."""

from __future__ import annotations

import hashlib

import pytest

from llmers_pipelines.data.dvc import md5_of, pointer, program, recorded_md5, track
from llmers_pipelines.data.schema import DataError
from llmers_pipelines.data.sources import content_hash


def tracked(path, text="a,b\n1,2\n"):
    path.write_text(text)
    md5 = hashlib.md5(text.encode()).hexdigest()
    pointer(path).write_text(
        f"outs:\n- md5: {md5}\n  size: {len(text)}\n  hash: md5\n  path: {path.name}\n"
    )
    return md5


def test_the_recorded_md5_is_read(tmp_path):
    path = tmp_path / "items.csv"
    assert tracked(path) == recorded_md5(path) == md5_of(path)
    assert recorded_md5(tmp_path / "other.csv") == ""


def test_a_tracked_file_counts_by_its_md5_and_a_changed_one_by_its_content(tmp_path):
    path = tmp_path / "items.csv"
    md5 = tracked(path)
    expected = hashlib.sha256(f"md5:{md5}".encode()).hexdigest()[:16]
    assert content_hash([path]) == expected
    path.write_text("a,b\n1,3\n")
    changed = content_hash([path])
    assert changed != expected
    pointer(path).unlink()
    assert content_hash([path]) == changed, "the same bytes without DVC"


def test_an_unchanged_file_is_hashed_once(tmp_path, monkeypatch):
    path = tmp_path / "items.csv"
    tracked(path)
    known = {}
    first = content_hash([path], known)
    monkeypatch.setattr("llmers_pipelines.data.sources.md5_of", lambda p: pytest.fail("again"))
    assert content_hash([path], known) == first


@pytest.mark.parametrize("text", ["", "outs: [", "outs:\n- path: items.csv\n", "- 1\n", "\x00"])
def test_a_broken_pointer_says_what_to_do(tmp_path, text):
    path = tmp_path / "items.csv"
    path.write_text("x")
    pointer(path).write_text(text)
    with pytest.raises(DataError, match=r"items\.csv\.dvc: no md5 of items\.csv .* `dvc add"):
        recorded_md5(path)


def test_a_missing_program_names_the_mend(tmp_path):
    with pytest.raises(DataError, match="make setup-dvc"):
        program(str(tmp_path / "dvc"))


def test_what_dvc_refuses_is_told(tmp_path):
    script = tmp_path / "dvc"
    script.write_text("#!/bin/sh\necho you are not inside of a DVC repository >&2\nexit 253\n")
    script.chmod(0o755)
    path = tmp_path / "items.csv"
    path.write_text("x")
    with pytest.raises(DataError, match=r"not inside of a DVC repository\n.*dvc init"):
        track([path], str(script))
