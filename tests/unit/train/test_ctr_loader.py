"""Histories of click rows: strictly before, from training rows alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from llmers_pipelines.data.training import HISTORY, TEST, TRAIN, VALID, IdMap, TrainingData
from llmers_pipelines.models.din import DIN
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.train.ctr_loader import Loader, auc, history_spans, logloss

SMALL = DIN(dim=4, attention=6, mlp=(8, 4), max_len=4, fit=Fit(batch=7, metric="auc"))


def random_log(seed=0, users=9, rows=120):
    """A log with ties in time, a random split and users without any row."""
    rng = np.random.default_rng(seed)
    user = np.sort(rng.integers(2, users, rows))
    time = rng.integers(0, 12, rows) * 1000 + 5
    order = np.lexsort((time, user))
    rating = rng.integers(1, 6, rows).astype(np.float32)
    return TrainingData(
        "ctr", IdMap(tuple(f"u{n}" for n in range(1, users + 1))),
        IdMap(tuple(f"i{n}" for n in range(1, 31))), user[order], rng.integers(1, 31, rows),
        time[order], rng.choice([TRAIN, VALID, TEST, HISTORY], rows).astype(np.int8),
        rating, (rating >= 4).astype(np.float32),
    )  # fmt: skip


def by_hand(data, row):
    seen = (
        (data.user == data.user[row])
        & (data.time < data.time[row])
        & np.isin(data.split, [TRAIN, HISTORY])
    )
    return np.flatnonzero(seen)


@pytest.mark.parametrize("seed", range(3))
def test_a_history_is_what_the_user_had_in_training_strictly_before(seed):
    data = random_log(seed)
    seen, start, end = history_spans(data)
    loader = Loader(data, SMALL, 0)
    batch = loader.batch(torch.arange(len(data.user)))
    for row in range(len(data.user)):
        expected = by_hand(data, row)
        assert seen[start[row] : end[row]].tolist() == expected.tolist()
        kept = expected[-SMALL.max_len :]
        pad = [0] * (batch.history.shape[1] - len(kept))
        assert batch.history[row].tolist() == pad + data.item[kept].tolist()
        assert batch.history_rating[row].tolist() == pad + data.rating[kept].tolist()


def test_rows_of_equal_time_do_not_see_each_other():
    data = dataclasses.replace(random_log(), time=np.zeros(120, np.int64))
    batch = Loader(data, SMALL, 0).batch(torch.arange(120))
    assert not batch.history.any()


def test_neither_the_future_nor_another_split_changes_a_history():
    data = random_log()
    tests = np.flatnonzero(data.split == TEST)
    row = tests[np.argmax([len(by_hand(data, r)) for r in tests])]
    before = Loader(data, SMALL, 0).batch(torch.tensor([row]))
    free = (data.time >= data.time[row]) | np.isin(data.split, [VALID, TEST])
    free[row] = False
    item, rating = data.item.copy(), data.rating.copy()
    item[free], rating[free] = 30, 1
    changed = dataclasses.replace(data, item=item, rating=rating, label=1 - data.label)
    after = Loader(changed, SMALL, 0).batch(torch.tensor([row]))
    assert torch.equal(before.history, after.history)
    assert torch.equal(before.history_rating, after.history_rating)
    assert before.history.any()


def test_an_epoch_is_every_training_row_once_in_an_order_of_seed_and_number():
    data = random_log()
    loader = Loader(data, SMALL, 0)

    def order(loader, number):
        return torch.cat([b.rows for b in loader.epoch(number)]).tolist()

    one = order(loader, 1)
    train = np.flatnonzero(data.split == TRAIN).tolist()
    assert sorted(one) == train != one
    assert order(loader, 1) == one
    assert order(Loader(data, SMALL, 0), 1) == one
    assert order(loader, 2) != one
    assert order(Loader(data, SMALL, 1), 1) != one
    sizes = [len(b.rows) for b in loader.epoch(1)]
    assert len(sizes) == loader.steps_per_epoch
    assert set(sizes[:-1]) == {SMALL.fit.batch}


def test_a_batch_carries_labels_users_and_items():
    data = random_log()
    rows = np.array([5, 80, 3])
    (batch,) = Loader(data, SMALL, 0).rows(rows)
    assert batch.rows.tolist() == rows.tolist()
    assert batch.label.tolist() == data.label[rows].tolist()
    assert batch.user.tolist() == data.user[rows].tolist()
    assert batch.item.tolist() == data.item[rows].tolist()


def test_labels_stand_in_for_ratings():
    data = dataclasses.replace(random_log(), rating=None)
    batch = Loader(data, SMALL, 0).batch(torch.arange(120))
    assert set(batch.history_rating[batch.history > 0].tolist()) == {0.0, 1.0}


def test_a_log_without_any_history_gives_padding():
    data = dataclasses.replace(random_log(), split=np.full(120, TEST, np.int8))
    batch = Loader(data, SMALL, 0).batch(torch.arange(3))
    assert batch.history.tolist() == [[0], [0], [0]]


class Oracle(torch.nn.Module):
    """Scores validation rows with a given number per row."""

    def __init__(self, values):
        super().__init__()
        self.values = torch.nn.Parameter(torch.as_tensor(values), requires_grad=False)

    def logits(self, batch):
        return self.values[batch.rows]


def test_validation_reads_the_validation_rows_alone():
    data = random_log()
    right = np.where(data.split == VALID, data.label, 1 - data.label) * 2 - 1
    loader = Loader(data, SMALL, 0)
    assert loader.validate(Oracle(right)) == 1
    assert loader.validate(Oracle(-right)) == 0
    assert loader.validate(Oracle(np.zeros(120))) == 0.5
    assert np.isnan(loader.validate(Oracle(np.full(120, np.nan))))
    by_loss = dataclasses.replace(SMALL, fit=Fit(metric="logloss"))
    assert Loader(data, by_loss, 0).validate(Oracle(np.zeros(120))) == pytest.approx(-np.log(2))


def test_a_log_without_labels_and_a_ranking_metric_are_refused():
    data = random_log()
    with pytest.raises(ValueError, match="has no labels"):
        Loader(dataclasses.replace(data, label=None), SMALL, 0)
    with pytest.raises(ValueError, match="'ndcg@10' does not suit"):
        Loader(data, dataclasses.replace(SMALL, fit=Fit()), 0)


def test_auc_counts_ties_half():
    assert auc(np.array([1, 1, 0, 0]), np.array([0.9, 0.5, 0.5, 0.1])) == 0.875
    assert auc(np.array([1, 0, 1]), np.zeros(3)) == 0.5
    assert np.isnan(auc(np.ones(3), np.arange(3.0)))


def test_logloss_of_the_golden_case():
    y, p = np.array([1, 1, 0, 0]), np.array([0.9, 0.8, 0.2, 0.1])
    assert logloss(y, p) == pytest.approx(0.164252, abs=1e-6)
    assert np.isfinite(logloss(y, 1.0 - y))
