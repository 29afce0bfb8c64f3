"""Acceptance tests of every model that judges rows: clicks, scenarios, news, ratings."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from llmers_pipelines.data.training import TEST, TRAIN, Field
from llmers_pipelines.models.autoint import AutoInt
from llmers_pipelines.models.biased_mf import BiasedMF
from llmers_pipelines.models.dcnv2 import DCNv2
from llmers_pipelines.models.deepfm import DeepFM
from llmers_pipelines.models.dien import DIEN
from llmers_pipelines.models.din import DIN
from llmers_pipelines.models.dlrm import DLRM
from llmers_pipelines.models.fibinet import FiBiNET
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.mmoe import MMoE
from llmers_pipelines.models.naml import NAML
from llmers_pipelines.models.nrms import NRMS
from llmers_pipelines.models.ple import PLE
from llmers_pipelines.models.star import STAR
from llmers_pipelines.models.xdeepfm import XDeepFM
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.testing.contract import contract_data
from llmers_pipelines.testing.planted import renumbered_items
from llmers_pipelines.train.clicks import auc, user_auc
from llmers_pipelines.train.loop import fit, load_loader, run_epochs
from llmers_pipelines.train.trained import load_trained, save_trained

FIT = Fit(lr=1e-2, batch=16, epochs=2, min_epochs=1, metric="auc")
SHARED = {"dim": 4, "dropout": 0.0, "fit": FIT}
BACKBONES = {
    "din": DIN(attention=8, mlp=(16, 8), **SHARED),
    "deepfm": DeepFM(mlp=(16, 8), **SHARED),
    "dcnv2": DCNv2(mlp=(16, 8), **SHARED),
    "autoint": AutoInt(mlp=(16, 8), attention=8, **SHARED),
    "xdeepfm": XDeepFM(mlp=(16, 8), cin=(6, 4), **SHARED),
    "fibinet": FiBiNET(mlp=(16, 8), **SHARED),
    "dien": DIEN(mlp=(16, 8), auxiliary=0.0, **SHARED),  # its negatives depend on positions
    "dlrm": DLRM(mlp=(16, 8), bottom=(8,), **SHARED),
    "mmoe": MMoE(mlp=(16, 8), tower=(8,), gate_dropout=0.0, **SHARED),
    "ple": PLE(mlp=(16, 8), tower=(8,), gate_dropout=0.0, **SHARED),
    "star": STAR(mlp=(16, 8), auxiliary=(8,), **SHARED),
    "nrms": NRMS(word_dim=8, heads=2, head=4, attention=6, dropout=0.0, fit=FIT),
    "naml": NAML(word_dim=16, filters=32, category_dim=4, attention=16, dropout=0.0, fit=FIT),
    "biased_mf": BiasedMF(dim=4, fit=dataclasses.replace(FIT, metric="rmse")),
}
every = pytest.mark.parametrize("name", BACKBONES)


@pytest.fixture
def data(name):
    task = next(iter(BACKBONES[name].tasks - {"multi_scenario"}), "multi_scenario")
    return contract_data(task)


def loader_of(backbone, data):
    return load_loader(backbone.loader)(data, backbone, 0)


def trained(model, batches, count):
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for batch in itertools.islice(batches, count):
        optimizer.zero_grad()
        model.loss(batch).backward()
        optimizer.step()
    return model.eval()


def predicted(model, backbone, data, rows=None):
    rows = np.arange(len(data.user)) if rows is None else rows
    return loader_of(backbone, data).probabilities(model, rows)


@every
def test_it_learns_the_rows_of_twenty_users_by_heart(name, data):
    few = data.user <= 20
    split = np.where(few | (data.split != TRAIN), data.split, TEST).astype(np.int8)
    data, backbone = dataclasses.replace(data, split=split), BACKBONES[name]
    loader = loader_of(backbone, data)
    model = backbone.build(data, 0)
    trained(model, itertools.chain.from_iterable(map(loader.epoch, range(1, 200))), 400)
    rows = np.flatnonzero(split == TRAIN)
    truth = data.rating[rows] > 3 if data.label is None else data.label[rows]
    p = predicted(model, backbone, data, rows)
    if data.task != "news":
        assert auc(truth, p) > 0.95
        return
    some = p != 0.5  # without a click before it, a row has no user
    assert user_auc(data.user[rows][some], truth[some], p[some])[0].mean() > 0.95


@every
def test_renumbering_items_changes_nothing(name, data):
    backbone = BACKBONES[name]
    other, new = renumbered_items(data, seed=5)
    first, second = backbone.build(data, 0), backbone.build(other, 0)
    back, given = torch.from_numpy(np.argsort(new)), first.state_dict()
    with torch.no_grad():
        for key, mine in second.state_dict().items():
            mine.copy_(given[key][back] if mine.dim() and len(mine) == len(back) else given[key])
    to = torch.from_numpy(new)
    batches = list(loader_of(backbone, data).epoch(1))

    def renumber(batch):
        there = [f for f in ("item", "history", "candidates") if hasattr(batch, f)]
        return dataclasses.replace(batch, **{f: to[getattr(batch, f)] for f in there})

    trained(first, iter(batches), 8)
    trained(second, map(renumber, batches), 8)
    a, b = predicted(first, backbone, data), predicted(second, backbone, other)
    np.testing.assert_allclose(b, a, atol=1e-4)
    assert np.ptp(a) > 1e-3


@every
def test_what_comes_later_changes_no_earlier_prediction(name, data):
    backbone = BACKBONES[name]
    model = trained(backbone.build(data, 0), loader_of(backbone, data).epoch(1), 8)
    last = np.flatnonzero(data.split == TRAIN)
    last = last[np.append(np.diff(data.user[last]) > 0, True)]  # of each user
    item, label = data.item.copy(), data.label
    item[last] = item[last] % data.n_items + 1
    if label is not None:
        label = label.copy()
        label[last] = 1 - label[last]
    other = dataclasses.replace(data, item=item, label=label)
    rows = np.flatnonzero(data.time < data.time[last][data.user - 1])
    np.testing.assert_array_equal(
        predicted(model, backbone, other, rows), predicted(model, backbone, data, rows)
    )
    later = np.flatnonzero(data.time > data.time[last][data.user - 1])
    changed = predicted(model, backbone, other, later) != predicted(model, backbone, data, later)
    assert changed.any() == (name != "biased_mf")  # which reads no history


@every
def test_a_stored_model_predicts_bit_for_bit(name, data, tmp_path):
    train = Train(BACKBONES[name], Table("splits", task=data.task))
    made = fit(train, data, {}, seed=0)
    rows = np.arange(len(data.user))
    save_trained(made, tmp_path)
    assert np.array_equal(made.predict(rows), load_trained(tmp_path, train, data).predict(rows))


@every
def test_a_frozen_table_stays_as_it_was(name, data):
    backbone = BACKBONES[name]
    model = backbone.build(data, 0)
    tables = [m for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    table = getattr(model, "item_table", tables[0]).weight.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    kept = table.clone()
    run_epochs(model, loader_of(backbone, data), backbone.fit, "test")
    assert torch.equal(table, kept)
    assert any(not torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", ["mmoe", "ple", "star", "biased_mf"])
def test_on_shuffled_labels_it_is_no_better_than_chance(name):
    """Ids are drawn anew for each row, so that there is nothing to learn but noise."""
    data = contract_data("rating" if name == "biased_mf" else "multi_scenario")
    rng = np.random.default_rng(0)
    n, codes = 6000, lambda size, n: rng.integers(1, size + 1, n)
    data = dataclasses.replace(
        data, user=np.sort(codes(data.n_users, n)), item=codes(data.n_items, n),
        time=np.arange(n), split=rng.integers(0, 3, n).astype(np.int8),
        rating=codes(5, n).astype(np.float32),
        label=None if data.label is None else codes(2, n).astype(np.float32) - 1,
        scenario=None if data.scenario is None else Field(codes(2, n).astype(np.int32), ("a", "b")),
    )  # fmt: skip
    how = dataclasses.replace(BACKBONES[name].fit, batch=128, epochs=3)
    backbone = dataclasses.replace(BACKBONES[name], fit=how)
    made = fit(Train(backbone, Table("splits", task=data.task)), data, {}, seed=0)
    rows = np.flatnonzero(data.split == TEST)
    truth = data.rating[rows] > 3 if data.label is None else data.label[rows]
    assert auc(truth, made.predict(rows)) == pytest.approx(0.5, abs=0.05)
