import json
import subprocess
import sys

import numpy as np
import pytest

from llmers_pipelines.store.vectors import VectorSpace, VectorStore, publish_once, text_keys


def rows(n, dim=4, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def test_keys_depend_on_identity_and_text_alone():
    keys = text_keys("e", ["a", "b", "a", "é", ""])
    assert keys.dtype == "S16" and keys[0] == keys[2] and len(set(keys.tolist())) == 4
    assert text_keys("f", ["a"])[0] != keys[0]
    assert len(text_keys("e", [])) == 0


def test_what_was_appended_is_found_in_any_order_and_process(tmp_path):
    vectors, keys = rows(50), text_keys("e", map(str, range(50)))
    space = VectorStore(tmp_path).space("e", 4)
    assert not space.lookup(keys)[0].any()
    space.append(keys[:20], vectors[:20])
    space.append(keys[20:40], vectors[20:40])
    order = np.random.default_rng(1).permutation(50)
    for reader in (space, VectorStore(tmp_path).space("e", 4)):
        found, got = reader.lookup(keys[order])
        assert (found == (order < 40)).all()
        assert (got[found] == vectors[order][found]).all() and not got[~found].any()


def test_a_key_twice_in_one_call_or_two_keeps_the_first_vector(tmp_path):
    space = VectorStore(tmp_path).space("e", 4)
    keys, vectors = text_keys("e", ["x", "x", "y"]), rows(3)
    space.append(keys, vectors)
    space.append(keys[:1], rows(1, seed=9))
    assert (space.lookup(keys)[1] == vectors[[0, 0, 2]]).all()
    assert space.stats()["vectors"] == 2


def test_reading_is_memory_mapped(tmp_path):
    space = VectorStore(tmp_path).space("e", 4)
    space.append(text_keys("e", ["x"]), rows(1))
    space.lookup(text_keys("e", ["x"]))
    assert all(isinstance(v, np.memmap) for v in space._vectors)


def test_unfinished_writes_are_invisible(tmp_path):
    space = VectorStore(tmp_path).space("e", 4)
    space.append(text_keys("e", ["x"]), rows(1))
    half = space.folder / ".tmp-dead"
    half.mkdir()
    (half / "keys.npy").write_bytes(b"half")
    assert space.lookup(text_keys("e", ["x", "y"]))[0].tolist() == [True, False]
    assert space.stats()["leftovers"] == 1 and VectorStore(tmp_path).verify() == []


def test_broken_vectors_and_widths_are_refused(tmp_path):
    store = VectorStore(tmp_path)
    space = store.space("e", 4)
    bad = rows(3)
    bad[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"1 of 3 vectors hold NaN.*nothing was stored"):
        space.append(text_keys("e", "abc"), bad)
    with pytest.raises(ValueError, match="expected vectors of width 4"):
        space.append(text_keys("e", "abc"), rows(3, dim=5))
    with pytest.raises(ValueError, match="holds 4 columns, asked for 5"):
        store.space("e", 5)
    assert space.append(text_keys("e", []), rows(0)) is None
    assert space.stats()["segments"] == 0


def test_verify_finds_changed_bytes_and_mends_by_setting_aside(tmp_path):
    store = VectorStore(tmp_path)
    space = store.space("e", 4)
    good, bad, cut = (text_keys("e", [t]) for t in "abc")
    space.append(good, rows(1))
    changed, short = space.append(bad, rows(1, seed=1)), space.append(cut, rows(1, seed=2))
    np.save(changed / "vectors.npy", rows(1, seed=3))
    (short / "vectors.npy").write_bytes(b"\x93NUMPY")
    faults = store.verify()
    assert {f.path for f in faults} == {changed, short}
    assert any("not what was written" in f.problem for f in faults)
    assert str(faults[0]) == f"{faults[0].path}: {faults[0].problem}"
    store.verify(mend=True)
    assert store.verify() == []
    found, _ = VectorSpace(space.folder, 4).lookup(np.concatenate([good, bad, cut]))
    assert found.tolist() == [True, False, False]


def test_compaction_keeps_every_answer_and_survives_interruption(tmp_path):
    space = VectorStore(tmp_path).space("e", 4)
    keys, vectors = text_keys("e", map(str, range(30))), rows(30)
    for start in range(0, 30, 10):
        space.append(keys[start : start + 10], vectors[start : start + 10])
    space.append(keys[:5], rows(5, seed=7))  # later answers to old keys must not win
    reader = VectorSpace(space.folder, 4)
    reader.lookup(keys)
    copies = {p.name: [(f.name, f.read_bytes()) for f in p.iterdir()]
              for p in space.folder.glob("seg-*")}  # fmt: skip
    assert space.compact() == 4
    assert space.stats()["segments"] == 1 and space.stats()["vectors"] == 30
    for name, files in copies.items():  # as if it had been killed before removing the sources
        (space.folder / name).mkdir()
        for file, body in files:
            (space.folder / name / file).write_bytes(body)
    for again in (space, reader, VectorSpace(space.folder, 4)):
        found, got = again.lookup(keys)
        assert found.all() and (got == vectors).all()
    assert space.compact() == 5
    found, got = VectorSpace(space.folder, 4).lookup(keys)
    assert found.all() and (got == vectors).all()
    assert space.compact() == 1 and space.compact() == 1


WRITER = """
import sys, numpy as np, pathlib
from llmers_pipelines.store.vectors import VectorStore, text_keys
space = VectorStore(pathlib.Path(sys.argv[1])).space("e", 4)
for n in range(20):
    keys = text_keys("e", [f"{n}", f"{sys.argv[2]}-{n}"])
    space.append(keys, np.full((2, 4), n, np.float32))
    if n == 10:
        space.compact()
"""


def test_many_writers_lose_nothing(tmp_path):
    jobs = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), w]) for w in "ab"]
    assert [j.wait(60) for j in jobs] == [0, 0]
    names = [f"{w}{n}" for n in range(20) for w in ("", "a-", "b-")]
    found, got = VectorStore(tmp_path).space("e", 4).lookup(text_keys("e", names))
    assert found.all()
    assert (got[:, 0] == np.repeat(np.arange(20), 3)).all()
    assert VectorStore(tmp_path).verify() == []


def test_stats_name_the_identity(tmp_path):
    store = VectorStore(tmp_path)
    store.space("model A", 2).append(text_keys("model A", ["x"]), rows(1, dim=2))
    store.space("model B", 3)
    stats = {row["identity"]: row for row in store.stats()}
    assert stats["model A"]["vectors"] == 1 and stats["model A"]["bytes"] > 0
    assert stats["model B"]["vectors"] == 0 and stats["model B"]["dim"] == 3
    assert json.dumps(list(stats.values()))


def test_publish_once_keeps_the_first_content(tmp_path):
    path = tmp_path / "deep" / "x"
    publish_once(path, b"first")
    publish_once(path, b"second")
    assert path.read_bytes() == b"first" and len(list(path.parent.iterdir())) == 1


def test_publish_once_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr("llmers_pipelines.store.vectors.os.link", refuse)
    publish_once(tmp_path / "x", b"whole")
    assert (tmp_path / "x").read_bytes() == b"whole" and len(list(tmp_path.iterdir())) == 1
