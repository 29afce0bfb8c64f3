"""A compaction killed at any of its steps loses no row, and the next one finishes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from llmers_pipelines.store.responses import ResponseStore
from llmers_pipelines.store.vectors import VectorStore, text_keys

POINTS = {"answers": 14, "vectors": 26}
# The child of each fork dies before its n-th call that changes or syncs the folder.
KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from llmers_pipelines.store.responses import ResponseStore
from llmers_pipelines.store.vectors import VectorStore
source, out = Path(sys.argv[1]), Path(sys.argv[2])
for point in range(int(sys.argv[3])):
    home = out / str(point)
    shutil.copytree(source, home)
    if not (pid := os.fork()):
        left = [point]
        def dying(real):
            def call(*args, **kwargs):
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return real(*args, **kwargs)
            return call
        for name in ("replace", "rename", "fsync", "unlink"):
            setattr(os, name, dying(getattr(os, name)))
        if sys.argv[4] == "answers":
            ResponseStore(home / "responses").compact(target_rows=6)
        else:
            for _, space in VectorStore(home / "vectors").spaces():
                space.compact()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def killed(source: Path, out: Path, what: str) -> list[int]:
    command = [sys.executable, "-c", KILLED, str(source), str(out), str(POINTS[what]), what]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [int(line) for line in done.stdout.split()]


def test_answers_survive_a_merge_that_is_killed_anywhere(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path / "home" / "responses")
    keys = []
    with store.writer(flush_rows=2) as writer:
        for n in range(12):
            request = str(n % 10)  # two keys twice: the first answer stays the first
            keys.append(writer.put(text=f"answer {n}", finish_reason="stop", request=request,
                                   identity="m"))  # fmt: skip
    truth = store.lookup(keys)
    codes = killed(tmp_path / "home", tmp_path / "out", "answers")
    assert codes[0] == -9 and codes.count(-9) >= 11 and codes[-1] == 0
    for point in range(POINTS["answers"]):
        store = ResponseStore(tmp_path / "out" / str(point) / "responses")
        assert store.lookup(keys) == truth, point
        store.compact(target_rows=6)
        again = ResponseStore(store.segments.folder)
        assert again.lookup(keys) == truth and again.verify() == []
        assert len(again.files()) == 2 and again.stats()["rows"] == 12, point


def test_vectors_survive_a_merge_that_is_killed_anywhere(tmp_path: Path) -> None:
    space = VectorStore(tmp_path / "home" / "vectors").space("e", 4)
    keys = text_keys("e", map(str, range(8)))
    truth = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    for start in range(0, 8, 2):
        space.append(keys[start : start + 2], truth[start : start + 2])
    codes = killed(tmp_path / "home", tmp_path / "out", "vectors")
    assert codes[0] == -9 and codes.count(-9) >= 8 and codes[-1] == 0
    for point in range(POINTS["vectors"]):
        store = VectorStore(tmp_path / "out" / str(point) / "vectors")
        for _ in range(2):
            found, got = store.space("e", 4).lookup(keys)
            assert found.all() and (got == truth).all(), point
            store.space("e", 4).compact()
        assert store.verify() == [] and store.space("e", 4).stats()["segments"] == 1
