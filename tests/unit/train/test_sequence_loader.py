"""Windows and batches of sequence models against their plain form, one window at a time."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from llmers_pipelines.api import splits
from llmers_pipelines.data.training import HISTORY, TEST, TRAIN, VALID, IdMap, TrainingData
from llmers_pipelines.models.bert4rec import BERT4Rec
from llmers_pipelines.models.caser import Caser
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.histories import rows_of
from llmers_pipelines.models.hstu import HSTU
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.plan import PlanError, Train
from llmers_pipelines.train import cloze_loader, sequence_loader
from llmers_pipelines.train.batches import SequenceBatch, left_pad
from llmers_pipelines.train.loop import fit, load_loader

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


def plain_gaps(data, max_len):
    """(user, first, last, aimed) of each window with gaps; its rows after ``aimed`` have none."""
    rows = rows_of(data, (TRAIN, HISTORY))
    is_target = data.split[rows.row] == TRAIN
    out = []
    for u in range(1, data.n_users + 1):
        own = list(range(rows.start[u], rows.start[u + 1]))
        for end in range(len(own), 0, -max_len) if len(own) > 1 else ():
            cut = own[max(0, end - max_len) : end]
            if any(is_target[cut]):
                out.append((u, cut[0], cut[-1] if len(cut) > 1 else own[1], cut[-1]))
    return out


def plain(kind):
    """A loader of ``kind`` whose windows and batches are cut one by one."""

    class Plain(kind):
        def __init__(self, data, backbone, seed):
            super().__init__(data, backbone, seed)
            last_only = getattr(backbone, "trains_last_only", False)
            width = backbone.max_len
            if kind is cloze_loader.Loader:
                found = np.array(plain_gaps(data, width))
                self._user, self._first, self._last, self._aimed = found.T
            else:
                found = np.array(plain_windows(data, width, 1 if last_only else width))
                self._user, self._first, self._last = found.T
            self._begin = self._first - rows_of(data, (TRAIN, HISTORY)).start[self._user]

        def _batch(self, rows, rng):
            def cut(values, a=0, b=0):
                return left_pad([values[self._first[r] + a : self._last[r] + b] for r in rows])

            if kind is cloze_loader.Loader:
                beside = self._last - self._aimed  # 0, or 1 where a row was left alone
                aim = cut(self._aim, b=1)
                for at, r in enumerate(rows):
                    aim[at, aim.shape[1] - beside[r] :] = 0
                masked = self.masked(cut(self._item, b=1), aim, rng)
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


def long_log(lengths):
    """Histories of training rows alone, one per length; each row has an item of its own."""
    user = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    return TrainingData(
        "sequential", IdMap(tuple(f"u{n}" for n in range(1, len(lengths) + 1))),
        IdMap(tuple(f"i{n}" for n in range(1, len(user) + 1))), user,
        np.arange(1, len(user) + 1), np.arange(len(user)), np.full(len(user), TRAIN, np.int8),
    )  # fmt: skip


def test_each_row_of_a_long_history_is_masked_equally_often():
    data, epochs = long_log([120] * 20), 200
    loader = cloze_loader.Loader(data, BERT4Rec(max_len=12, mask=0.4, fit=FIT), 0)
    targets = [b.targets.numpy() for n in range(epochs) for b in loader.epoch(n)]
    masks = np.bincount(np.concatenate([t[t > 0] for t in targets]), minlength=2401)[1:]
    by_place = masks.reshape(20, 120).mean(0) / epochs  # each of 4,000 draws: s.e. .008
    np.testing.assert_allclose(by_place, 0.4 + 0.6**12 / 12, atol=0.04)


@pytest.mark.parametrize("max_len", [1, 2, 12])
@pytest.mark.parametrize("length", [2, 3, 11, 12, 13, 24, 25])
def test_each_row_is_a_target_of_one_window(length, max_len):
    """Every row masked: what is a target twice, or never, shows."""
    data = long_log([length] * 5)
    loader = cloze_loader.Loader(data, BERT4Rec(max_len=max_len, mask=1.0, fit=FIT), 0)
    batches = list(loader.epoch(1))
    assert max(b.items.shape[1] for b in batches) <= max(2, max_len)
    targets = np.concatenate([b.targets.numpy().ravel() for b in batches])
    assert sorted(targets[targets > 0]) == list(range(1, 5 * length + 1))
    windows = [items[items > 0] for b in batches for items in b.items.numpy()]
    assert all(len(items) > 1 for items in windows), "a row left alone is read with the next one"
    read = [items[-1] for items in windows if items[-1] <= data.n_items]
    assert len(read) == (5 if length % max(2, max_len) == 1 else 0)


def test_a_log_without_a_window_has_no_steps():
    data = random_log(0)
    data = dataclasses.replace(data, split=np.full(len(data.user), HISTORY, np.int8))
    loader = sequence_loader.Loader(data, BACKBONES["all positions"], 0)
    assert loader.steps_per_epoch == 0
    assert list(loader.epoch(1)) == []


def aims(batch, ahead=1):
    """How often a state of ``batch`` is trained on one of its next ``ahead`` items."""
    items, targets = batch.items.numpy(), batch.targets.numpy()
    rows, width = items.shape
    return sum(
        items[r, p] > 0 and targets[r, p + k] > 0
        for r in range(rows) for p in range(width) for k in range(min(ahead, width - p))
    )  # fmt: skip


WEIGHED = {n: b for n, b in BACKBONES.items() if n != "gaps"} | {
    "three ahead": Caser(max_len=6, targets=3, fit=FIT),
}


@pytest.mark.parametrize("name", WEIGHED)
def test_weighted_batches_make_each_target_count_alike(name):
    data, backbone = random_log(3), WEIGHED[name]
    loader = load_loader(type(backbone).loader)(data, backbone, 0)
    rng = np.random.default_rng(0)
    total, targets, means = 0.0, 0, []
    for batch in loader.epoch(1):
        losses = rng.random(aims(batch, getattr(backbone, "targets", 1))) + batch.items.shape[1]
        total, targets = total + losses.sum(), targets + len(losses)
        means.append(float(batch.weight) * losses.mean() if len(losses) else 0.0)
    assert len(means) > 1
    assert np.mean(means) == pytest.approx(total / targets)


def test_three_ahead_are_the_pairs_that_caser_learns_from():
    data, backbone = random_log(3), WEIGHED["three ahead"]
    net, more = backbone.build(data, 0), 0
    for batch in load_loader("sequence")(data, backbone, 0).epoch(1):
        taught = net._supervised(batch, torch.zeros(*batch.items.shape, 1))[1]
        assert len(taught) == aims(batch, 3)
        more += len(taught) - aims(batch)
    assert more > 0


def test_weights_of_batches_with_gaps_are_near_one_in_the_mean():
    backbone = dataclasses.replace(BACKBONES["gaps"], last=0.3)
    loader = load_loader("cloze")(random_log(3), backbone, 0)
    weights = [float(b.weight) for n in range(40) for b in loader.epoch(n)]
    assert np.mean(weights) == pytest.approx(1.0, abs=0.02)
    assert np.std(weights) > 0.05


@pytest.mark.parametrize(
    ("lengths", "how"),
    [([3] * 30, {"max_len": 2, "mask": 1.0}), ([30] * 30, {"max_len": 12, "last": 0.5})],
    ids=["a row left alone is one target, not two", "windows masked at the newest row alone"],
)
def test_the_expected_masks_are_those_of_many_epochs(lengths, how):
    backbone = BERT4Rec(**{"mask": 0.4, **how}, fit=FIT)
    loader = cloze_loader.Loader(long_log(lengths), backbone, 0)
    weights = [float(b.weight) for n in range(60) for b in loader.epoch(n)]
    assert np.mean(weights) == pytest.approx(1.0, abs=0.02)


def test_each_batch_alike_has_no_weights():
    backbone = dataclasses.replace(BACKBONES["gaps"], fit=Fit(batch=7, weigh="batch"))
    assert all(b.weight is None for b in load_loader("cloze")(random_log(3), backbone, 0).epoch(1))


def test_the_weight_of_a_batch_is_that_of_its_targets_and_not_of_its_windows():
    """What a part adds per window counts as often as its windows: a batch has equally many."""

    class PerWindow(torch.nn.Module):
        stream = staticmethod(nullcontext)

        def extra_loss(self, model, batch, states):
            return states.new_tensor(5.0)

    data, backbone = random_log(3), BACKBONES["all positions"]
    net = backbone.build(data, 0).eval()
    batch = next(load_loader("sequence")(data, backbone, 0).epoch(1))
    plain = float(net.loss(dataclasses.replace(batch, weight=None)).detach())
    net.hooks.append(PerWindow())
    heavy = dataclasses.replace(batch, weight=torch.tensor(3.0))
    assert float(net.loss(heavy).detach()) == pytest.approx(3 * plain + 5)


@pytest.mark.parametrize("weigh", [None, "target", "batch"])
def test_a_training_reports_the_mean_over_what_counts_alike(weigh):
    data = random_log(3)
    still = Fit(batch=7, lr=1e-12, epochs=1, min_epochs=1, **({"weigh": weigh} if weigh else {}))
    backbone = SASRec(max_len=4, dropout=0.0, dim=8, inner=8, fit=still)
    trained = fit(Train(backbone, splits("sequential")), data, {}, seed=0)
    net = backbone.build(data, 0).eval()
    loader = load_loader("sequence")(data, backbone, 0)
    with torch.no_grad():
        plain = (dataclasses.replace(b, weight=None) for b in loader.epoch(1))
        all_ = [(float(net.loss(b)), int((b.targets > 0).sum())) for b in plain]
    by_target = sum(loss * n for loss, n in all_) / sum(n for _, n in all_)
    by_batch = np.mean([loss for loss, _ in all_])
    assert abs(by_target - by_batch) > 1e-4
    expected = by_batch if weigh == "batch" else by_target
    assert trained.epochs[0]["train_loss"] == pytest.approx(expected, rel=1e-5)


def test_another_weighing_is_refused():
    with pytest.raises(PlanError, match=r"fit\.weigh is 'user'; use one of batch, target"):
        Fit(weigh="user")
