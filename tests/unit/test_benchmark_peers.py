"""What the peers of a benchmark are told of a click log: the history that our loader gives."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from llmers_pipelines.data.training import IdMap, TrainingData
from llmers_pipelines.models.deepfm import DeepFM
from llmers_pipelines.train.ctr_loader import Loader

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (PEERS, PEERS / "runners"):
        monkeypatch.syspath_prepend(str(folder))
    yield
    for name in ("sides", "install", "measure"):
        sys.modules.pop(name, None)


def test_a_history_is_what_was_liked_strictly_before(peers: None, tmp_path: Path) -> None:
    from measure import before
    from sides import write_split

    data = TrainingData(
        task="ctr", users=IdMap(("a", "b")), items=IdMap(tuple("pqrstu")),
        user=np.array([1, 1, 1, 1, 1, 1, 2, 2]), item=np.array([1, 2, 3, 4, 5, 6, 6, 1]),
        time=np.array([1, 2, 3, 3, 4, 5, 1, 2]), split=np.array([0, 0, 0, 0, 1, 2, 2, 0], np.int8),
        label=np.array([1, 0, 1, 1, 1, 0, 1, 1], np.float32),
    )  # fmt: skip
    write_split(data, tmp_path)
    with np.load(tmp_path / "split.npz") as z:
        log = {name: z[name] for name in z.files}
    given = before(log, log["liked"], 2)
    # rows 3 and 4 share a second; neither the disliked item 2 nor the validation row 5 is read
    hand = [[0, 0], [0, 1], [0, 1], [0, 1], [3, 4], [3, 4], [0, 0], [0, 0]]
    np.testing.assert_array_equal(given, hand)
    np.testing.assert_array_equal(before(log, -log["liked"], 3)[4], [-1, -3, -4])

    loader = Loader(data, DeepFM(max_len=30), 0)  # as our models see it, with what was disliked
    own = next(loader.rows(np.arange(8)))
    pairs = zip(own.history, own.history_rating, strict=True)
    liked = [row[row * seen > 0][-2:] for row, seen in pairs]
    assert [row.tolist() for row in liked] == [[v for v in row if v] for row in hand]
