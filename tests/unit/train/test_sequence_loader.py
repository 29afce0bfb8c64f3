"""Windows and batches of sequence models against their plain form, one window at a time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from llmers_pipelines.data.training import HISTORY, TEST, TRAIN, VALID, IdMap, TrainingData
from llmers_pipelines.models.bert4rec import BERT4Rec
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.histories import rows_of
from llmers_pipelines.models.hstu import HSTU
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.train import cloze_loader, sequence_loader
from llmers_pipelines.train.batches import SequenceBatch, left_pad

FIT = Fit(batch=7)
BACKBONES = {
    "all positions": SASRec(max_len=4, fit=FIT),
    "one position": SASRec(max_len=1, fit=FIT),
    "whole histories": SASRec(max_len=50, fit=FIT),
    "negatives": SASRec(max_len=4, loss="bpr", fit=FIT),
    "last": SASRec(max_len=4, supervise="last", fit=FIT),
    "last, negatives": SASRec(max_len=3, supervise="last", loss="bce", fit=FIT),
    "times": HSTU(max_len=5, time_buckets=8, fit=FIT),
    "gaps": BERT4Rec(max_len=4, fit=FIT),
}


def random_log(seed):
    """Users of 0 to 14 rows of all splits; some have one row, or none that is a target."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 15, 60)
    counts[[0, 5, 59]] = 0, 1, 1
    user = np.repeat(np.arange(1, 61), counts)
    split = rng.choice([TRAIN, TRAIN, VALID, TEST, HISTORY], len(user)).astype(np.int8)
    split[user % 9 == 0] = HISTORY
    return TrainingData(
        "sequential", IdMap(tuple(f"u{n}" for n in range(1, 61))),
        IdMap(tuple(f"i{n}" for n in range(1, 41))), user, rng.integers(1, 41, len(user)),
        np.arange(len(user)) * 1000 + 5, split,
    )  # fmt: skip


def plain_windows(data, max_len, stride):
    """(user, first, last) of each window, found by walking through each user's rows."""
    rows = rows_of(data, (TRAIN, HISTORY))
    is_target = data.split[rows.row] == TRAIN
    out = []
    for u in range(1, data.n_users + 1):
        low, high = rows.start[u], rows.start[u + 1] - 1
        for end in range(high, low, -stride):
            begin = max(low, end - max_len)
            if any(is_target[max(begin, end - stride) + 1 : end + 1]):
                out.append((u, begin, end))
    return out


def plain(kind):
    """A loader of ``kind`` whose windows and batches are cut one by one."""

    class Plain(kind):
        def __init__(self, data, backbone, seed):
            super().__init__(data, backbone, seed)
            last_only = getattr(backbone, "trains_last_only", False)
            width = backbone.max_len - 1 if kind is cloze_loader.Loader else backbone.max_len
            found = np.array(plain_windows(data, width, 1 if last_only else width))
            self._user, self._first, self._last = found.T
            self._begin = self._first - rows_of(data, (TRAIN, HISTORY)).start[self._user]

        def _batch(self, rows, rng):
            def cut(values, a=0, b=0):
                return left_pad([values[self._first[r] + a : self._last[r] + b] for r in rows])

            if kind is cloze_loader.Loader:
                masked = self.masked(cut(self._item, b=1), cut(self._aim, b=1), rng)
                return self._made(rows, *masked, rng)
            targets = cut(self._aim, 1, 1)
            if self._last_only:
                targets[:, :-1] = 0
            batch = self._made(rows, cut(self._item), targets, rng)
            if self._time is None:
                return batch
            time = left_pad([self._time[self._first[r] : self._last[r]] for r in rows])
            return dataclasses.replace(batch, time=batch.items.new_tensor(time))

    return Plain


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", BACKBONES)
def test_batches_are_those_of_the_plain_form(name, seed):
    data, backbone = random_log(seed), BACKBONES[name]
    kind = {"cloze": cloze_loader, "sequence": sequence_loader}[backbone.loader].Loader
    quick, slow = kind(data, backbone, 3), plain(kind)(data, backbone, 3)
    assert quick.steps_per_epoch == slow.steps_per_epoch > 3
    for epoch in (1, 2):
        for one, other in zip(quick.epoch(epoch), slow.epoch(epoch), strict=True):
            for part in dataclasses.fields(SequenceBatch):
                a, b = getattr(one, part.name), getattr(other, part.name)
                assert (a is None) == (b is None), part.name
                if a is not None:
                    assert a.dtype == b.dtype
                    np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=part.name)


def test_a_log_without_a_window_has_no_steps():
    data = random_log(0)
    data = dataclasses.replace(data, split=np.full(len(data.user), HISTORY, np.int8))
    loader = sequence_loader.Loader(data, BACKBONES["all positions"], 0)
    assert loader.steps_per_epoch == 0
    assert list(loader.epoch(1)) == []
