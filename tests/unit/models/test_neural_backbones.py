"""Acceptance tests that every neural ranking backbone must pass, by parametrization."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from llmers_pipelines.data.training import TEST, TRAIN, VALID
from llmers_pipelines.models.bert4rec import BERT4Rec
from llmers_pipelines.models.bprmf import BPRMF
from llmers_pipelines.models.caser import Caser
from llmers_pipelines.models.comirec import ComiRec
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.gru4rec import GRU4Rec
from llmers_pipelines.models.histories import history_before, rows_of
from llmers_pipelines.models.hstu import HSTU
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.models.ranking_net import ndcg, rank_targets
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.models.served import load_served
from llmers_pipelines.models.sgl import SGL
from llmers_pipelines.models.srgnn import SRGNN
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.testing.planted import planted_rings, renumbered_items
from llmers_pipelines.train.loop import fit, load_loader, run_epochs
from llmers_pipelines.train.trained import load_trained, save_trained

LOG = Table("splits", task="sequential")
FIT = Fit(lr=3e-3, batch=16, epochs=2, min_epochs=1, patience=2)
BACKBONES = {
    "sasrec": SASRec(dim=16, inner=32, dropout=0.2, max_len=12, fit=FIT),
    "sasrec-right": SASRec(
        dim=16, inner=32, heads=2, layers=2, dropout=0.2, max_len=12, positions="right", fit=FIT
    ),
    "gru4rec": GRU4Rec(dim=16, hidden=24, dropout=0.2, max_len=12, fit=FIT),
    "bert4rec": BERT4Rec(dim=16, inner=32, dropout=0.2, max_len=12, fit=FIT),
    "caser": Caser(dim=16, horizontal=4, vertical=2, dropout=0.2, max_len=12, fit=FIT),
    "caser-shared": Caser(dim=16, personal=False, targets=1, dropout=0.2, max_len=12, fit=FIT),
    "srgnn": SRGNN(dim=16, dropout=0.2, max_len=12, fit=FIT),
    "hstu": HSTU(dim=16, inner=16, attention=16, heads=2, max_len=12, fit=FIT),
    "comirec": ComiRec(dim=16, inner=32, interests=2, dropout=0.2, max_len=12, fit=FIT),
    "lightgcn-ssm": LightGCN(dim=16, negatives=16, layers=2, fit=FIT),
    "lightgcn-bpr": LightGCN(dim=16, loss="bpr", layers=2, fit=FIT),
    "bprmf-ssm": BPRMF(dim=16, negatives=16, fit=FIT),
    "bprmf-bpr": BPRMF(dim=16, loss="bpr", fit=FIT),
    "bprmf-bce": BPRMF(dim=16, loss="bce", fit=FIT),
    "sgl": SGL(dim=16, negatives=16, layers=2, fit=FIT),
    "sgl-walk": SGL(dim=16, loss="bpr", layers=2, augment="walk", fit=FIT),
    "lightgcn-ce": LightGCN(dim=16, loss="ce", layers=2, fit=FIT),
    "lightgcn-in_batch": LightGCN(dim=16, loss="in_batch", layers=2, fit=FIT),
}
ORDERED = {name for name, backbone in BACKBONES.items() if backbone.loader != "pair"}
every = pytest.mark.parametrize("name", BACKBONES)


@pytest.fixture(scope="module")
def rings():
    return planted_rings(n_users=40, n_items=30, seed=3)


def batches_of(backbone, data, seed=0):
    """Batches without end, epoch after epoch."""
    loader = load_loader(backbone.loader)(data, backbone, seed)
    return itertools.chain.from_iterable(loader.epoch(n) for n in itertools.count(1))


def steps(model, batches, count, lr=0.01):
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    for batch in itertools.islice(batches, count):
        optimizer.zero_grad()
        loss = model.loss(batch)
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def scores_of(model, data, split=VALID):
    from llmers_pipelines.models.served import Served

    users = np.arange(1, data.n_users + 1)
    return Served(model.eval()).scores(users, history_before(data, split).lists(users))


@every
def test_overfits_twenty_users(name):
    data = planted_rings(n_users=20, n_items=40, follow=0.6, seed=1).data
    given = {"dropout": 0.0, "dim": 32} if name in ORDERED else {"l2": 0.0, "dim": 32}
    if name in ORDERED and hasattr(BACKBONES[name], "layers"):
        given["layers"] = 2
    backbone = dataclasses.replace(BACKBONES[name], **given)
    torch.manual_seed(0)
    model = backbone.build(data, 0)
    steps(model, batches_of(backbone, data), 150, 0.003 if name == "bert4rec" else 0.01)
    if name in ORDERED:  # the last training item from those before it
        rows = rows_of(data, (TRAIN,))
        lists = rows.lists(range(1, data.n_users + 1))
        from llmers_pipelines.models.served import Served

        top = (
            Served(model.eval())
            .scores(np.arange(1, data.n_users + 1), [h[:-1] for h in lists])
            .argmax(1)
        )
        hits = [t == h[-1] for t, h in zip(top, lists, strict=True)]
    else:  # the best item is one of the user's
        rows = rows_of(data, (TRAIN,))
        top = scores_of(model, data).argmax(1)
        hits = [t in rows.of(u) for u, t in enumerate(top, start=1)]
    assert np.mean(hits) > 0.95


@every
def test_loss_at_the_start_is_that_of_a_guess(name, rings):
    backbone = dataclasses.replace(BACKBONES[name], table_std=1e-3)
    if name not in ORDERED:
        backbone = dataclasses.replace(backbone, l2=0.0)
    if hasattr(backbone, "contrast"):
        backbone = dataclasses.replace(backbone, contrast=0.0)
    if hasattr(backbone, "temperature"):
        backbone = dataclasses.replace(backbone, temperature=100.0)
    loader = load_loader(backbone.loader)(rings.data, backbone, 0)
    model = backbone.build(rings.data, 0)
    losses = [float(model.loss(b).detach()) for n in (1, 2, 3) for b in loader.epoch(n)]
    if name in ORDERED:
        expected = math.log(rings.data.n_items)
    elif backbone.loss in ("bpr", "bce"):
        expected = math.log(2) * (1 + (backbone.loss == "bce"))
    elif backbone.loss == "ce" or backbone.loss == "in_batch":
        expected = math.log(rings.data.n_items)
    else:  # a negative that is the positive itself is left out
        n = rings.data.n_items
        expected = math.log(1 + backbone.negatives * (n - 1) / n)
    assert np.mean(losses) == pytest.approx(expected, rel=0.01)


@every
def test_renumbering_items_changes_nothing(name, rings):
    backbone = BACKBONES[name]
    if name in ORDERED:
        backbone = dataclasses.replace(backbone, dropout=0.0)
    if hasattr(backbone, "drop"):  # which edges are dropped is a draw by their order
        backbone = dataclasses.replace(backbone, drop=0.0)
    other, new = renumbered_items(rings.data, seed=5)
    first, second = backbone.build(rings.data, 0), backbone.build(other, 0)
    second.load_state_dict(first.state_dict())
    back = np.argsort(new)
    with torch.no_grad():
        for mine, other_one in zip(second.parameters(), first.parameters(), strict=True):
            if len(mine) == rings.data.n_items + 1:
                mine.copy_(other_one[torch.from_numpy(back)])
    to = torch.from_numpy(np.append(new, rings.data.n_items + 1))  # the mask stays the mask
    batches = list(itertools.islice(batches_of(backbone, rings.data), 8))

    def renumber(batch):
        ids = ("items", "targets") if name in ORDERED else ("positive", "negative")
        there = [i for i in ids if getattr(batch, i) is not None]
        return dataclasses.replace(batch, **{i: to[getattr(batch, i)] for i in there})

    steps(first, iter(batches), 8)
    steps(second, map(renumber, batches), 8)
    a, b = scores_of(first, rings.data), scores_of(second, other)
    np.testing.assert_allclose(b[:, new], a, atol=2e-4)
    x = ndcg(rank_targets(first, rings.data, VALID))
    assert x == pytest.approx(ndcg(rank_targets(second, other, VALID)), abs=0.02)


@every
def test_neither_padding_nor_seen_items_are_recommended(name, rings):
    model = BACKBONES[name].build(rings.data, 0)
    scores = scores_of(model, rings.data, TEST)
    assert np.isneginf(scores[:, 0]).all()
    assert np.isfinite(scores[:, 1:]).all()
    ranks = rank_targets(model, rings.data, TEST)
    seen = history_before(rings.data, TEST)
    distinct = np.array([len(set(seen.of(u))) for u in ranks.user])
    assert (ranks.candidates == rings.data.n_items - distinct).all()
    assert (ranks.rank <= ranks.candidates).all()
    assert not any(i in seen.of(u) for u, i in zip(ranks.user, ranks.item, strict=True))


@every
def test_saved_and_served_models_score_bit_for_bit(name, rings, tmp_path):
    train = Train(BACKBONES[name], LOG)
    trained = fit(train, rings.data, {}, seed=0)
    users = np.arange(0, rings.data.n_users + 1)  # 0: an unknown user
    lists = history_before(rings.data, TEST).lists(users)
    lists[0] = lists[1]
    before = trained.scores(users, lists)
    save_trained(trained, tmp_path)
    loaded = load_trained(tmp_path, train, rings.data)
    assert np.array_equal(before, loaded.scores(users, lists))
    assert np.array_equal(before, load_served(*trained.export()).scores(users, lists))
    assert (loaded.best_epoch, loaded.epochs) == (trained.best_epoch, trained.epochs)
    assert np.ptp(before[0, 1:]) > 0  # the unknown user's history counts


@every
def test_a_frozen_table_stays_as_it_was(name, rings):
    backbone = BACKBONES[name]
    model = backbone.build(rings.data, 0)
    model.item_table.weight.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    loader = load_loader(backbone.loader)(rings.data, backbone, 0)
    run_epochs(model, loader, backbone.fit, "test")
    assert torch.equal(model.item_table.weight, before["item_table.weight"])
    assert any(not torch.equal(v, before[k]) for k, v in model.state_dict().items())


@every
def test_the_padding_row_is_never_trained(name, rings):
    backbone = BACKBONES[name]
    model = backbone.build(rings.data, 0)
    steps(model, batches_of(backbone, rings.data), 5)
    assert not model.item_table.weight[0].any()
    if getattr(model, "user_table", None) is not None:
        assert not model.user_table.weight[0].any()


@every
def test_equal_seeds_give_equal_weights_and_leave_the_global_stream_alone(name, rings):
    train = Train(BACKBONES[name], LOG)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first = fit(train, rings.data, {}, seed=1).export()[1]
    assert torch.equal(torch.rand(1), expected)
    second = fit(train, rings.data, {}, seed=1).export()[1]
    other = fit(train, rings.data, {}, seed=2).export()[1]
    assert all(np.array_equal(first[k], second[k]) for k in first)
    assert not np.array_equal(first["item_table.weight"], other["item_table.weight"])
