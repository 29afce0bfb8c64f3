"""Acceptance tests that every neural ranking backbone must pass, by parametrization."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from ranking_cases import (
    BACKBONES,
    CAUSAL,
    LOG,
    ORDERED,
    at_zero,
    batches_of,
    build,
    facts_of,
    lively,
    log_of,
    scores_of,
    steps,
)

from llmers_pipelines.data.training import TEST, TRAIN, VALID
from llmers_pipelines.models.batches import SequenceBatch
from llmers_pipelines.models.histories import history_before, rows_of
from llmers_pipelines.models.ranking_net import ndcg, rank_targets
from llmers_pipelines.models.served import Served, load_served
from llmers_pipelines.plan import Train
from llmers_pipelines.testing.planted import planted_rings, renumbered_items
from llmers_pipelines.train.loop import fit, load_loader, run_epochs
from llmers_pipelines.train.trained import load_trained, save_trained

every = pytest.mark.parametrize("name", BACKBONES)


@pytest.fixture(scope="module")
def rings():
    return planted_rings(n_users=40, n_items=30, seed=3).data


@pytest.fixture
def data(name, rings):
    return log_of(BACKBONES[name], rings)


@every
def test_overfits_twenty_users(name):
    given = {"dropout": 0.0, "dim": 32} if name in ORDERED else {"l2": 0.0, "dim": 32}
    if name in ORDERED and hasattr(BACKBONES[name], "layers"):
        given["layers"] = 2
    backbone = dataclasses.replace(BACKBONES[name], **given)
    data = log_of(backbone, planted_rings(n_users=20, n_items=40, follow=0.6, seed=1).data)
    torch.manual_seed(0)
    model = build(backbone, data)
    # BERT4Rec learns from the masked fifth of a window alone
    n_steps, lr = (800, 0.003) if name == "bert4rec" else (150, 0.01)
    steps(model, batches_of(backbone, data), n_steps, lr)
    rows = rows_of(data, (TRAIN,))
    if name in ORDERED:  # the last training item from those before it
        users = np.arange(1, data.n_users + 1)
        lists = rows.lists(users)
        top = Served(model.eval()).scores(users, [h[:-1] for h in lists]).argmax(1)
        hits = [t == h[-1] for t, h in zip(top, lists, strict=True)]
    else:  # the best item is one of the user's
        top = scores_of(model, data).argmax(1)
        hits = [t in rows.of(u) for u, t in enumerate(top, start=1)]
    assert np.mean(hits) > 0.95


@every
def test_loss_at_the_start_is_that_of_a_guess(name, data):
    backbone = at_zero(BACKBONES[name])
    alike = dataclasses.replace(backbone.fit, weigh="batch")  # the loss, not what it counts
    backbone = dataclasses.replace(backbone, fit=alike)
    loader = load_loader(backbone.loader)(data, backbone, 0)
    model = build(backbone, data)
    losses = [float(model.loss(b).detach()) for n in (1, 2, 3) for b in loader.epoch(n)]
    if name in ORDERED or backbone.loss in ("ce", "in_batch"):
        expected = math.log(data.n_items)
    elif backbone.loss in ("bpr", "bce"):
        expected = math.log(2) * (1 + (backbone.loss == "bce"))
    else:  # a negative that is the positive itself is left out
        n = data.n_items
        expected = math.log(1 + backbone.negatives * (n - 1) / n)
    assert np.mean(losses) == pytest.approx(expected, rel=0.01)


@every
def test_renumbering_items_changes_nothing(name, rings):
    backbone = BACKBONES[name]
    if name in ORDERED:
        backbone = dataclasses.replace(backbone, dropout=0.0)
    # which edges are dropped and which wrong facts are drawn depends on their order
    off = {k: 0.0 for k in ("drop", "weight") if hasattr(backbone, k)}
    backbone = dataclasses.replace(backbone, **off)
    other, new = renumbered_items(rings, seed=5)
    rings, other = log_of(backbone, rings), log_of(backbone, other)
    first, second = build(backbone, rings), build(backbone, other)
    second.load_state_dict(first.state_dict())
    back = torch.from_numpy(np.argsort(new))
    with torch.no_grad():
        for key, mine in second.state_dict().items():
            if len(mine) == len(back) or key == "entity_table.weight":
                mine[: len(back)] = first.state_dict()[key][back]
    to = torch.from_numpy(np.append(new, rings.n_items + 1))  # the mask stays the mask
    batches = list(itertools.islice(batches_of(backbone, rings), 8))

    def renumber(batch):
        ids = ("items", "targets") if name in ORDERED else ("positive", "negative")
        there = [i for i in ids if getattr(batch, i) is not None]
        return dataclasses.replace(batch, **{i: to[getattr(batch, i)] for i in there})

    steps(first, iter(batches), 8)
    steps(second, map(renumber, batches), 8)
    a, b = scores_of(first, rings), scores_of(second, other)
    np.testing.assert_allclose(b[:, new], a, atol=2e-4)
    x = ndcg(rank_targets(first, rings, VALID))
    assert x == pytest.approx(ndcg(rank_targets(second, other, VALID)), abs=0.02)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_later_item_never_changes_an_earlier_state(name, data):
    net = lively(build(BACKBONES[name], data))
    items = torch.tensor([[3, 5, 7, 9, 11, 2], [3, 5, 7, 4, 11, 2]])
    ones = torch.ones(2, dtype=torch.int64)
    with torch.no_grad():
        states = net.user_state(SequenceBatch(ones, items, items.roll(-1, 1), 0 * ones))
    torch.testing.assert_close(states[0, :3], states[1, :3])
    assert ((states[0, 3:] - states[1, 3:]).abs().amax(-1) > 1e-4).all()


@every
def test_padding_and_other_rows_change_no_score(name, data):
    net = lively(build(BACKBONES[name], data))
    lists = [np.array([3, 4]), np.arange(1, 12)]
    both = Served(net).scores([1, 2], lists)
    np.testing.assert_allclose(both[:1], Served(net).scores([1], lists[:1]), atol=1e-4, rtol=1e-4)
    assert np.abs(both[0, 1:] - both[1, 1:]).max() > 1e-2
    wide = SequenceBatch(torch.tensor([1]), torch.tensor([[0, 0, 0, 0, 3, 4]]))
    with torch.no_grad():
        padded = net.score(net.user_state(wide))[0, 1:]
    np.testing.assert_allclose(padded, both[0, 1:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", sorted(ORDERED))
def test_of_a_long_history_the_newest_items_count(name, data):
    """Scoring cuts as training does; an appended mask takes the oldest place."""
    net = lively(build(BACKBONES[name], data))
    rng = np.random.default_rng(0)
    long = rng.integers(1, data.n_items + 1, 30)
    kept = BACKBONES[name].max_len - (name == "bert4rec")
    whole, newest = (Served(net).scores([1], [h]) for h in (long, long[-kept:]))
    np.testing.assert_allclose(whole, newest, atol=1e-5)
    assert BACKBONES[name].max_len < len(long)


@pytest.mark.parametrize("name", sorted({n.partition("-")[0] for n in BACKBONES}))
def test_the_default_loss_is_over_many_items(name):
    """One sampled negative makes a straw man of a baseline."""
    kind = type(next(b for n, b in BACKBONES.items() if n.partition("-")[0] == name))
    default = {f.name: f.default for f in dataclasses.fields(kind)}["loss"]
    assert default in ("ce", "ssm", "full")


@every
def test_neither_padding_nor_seen_items_are_recommended(name, data):
    model = build(BACKBONES[name], data)
    scores = scores_of(model, data, TEST)
    assert np.isneginf(scores[:, 0]).all()
    assert scores.shape == (data.n_users, data.n_items + 1)
    assert np.isfinite(scores[:, 1:]).all()
    ranks = rank_targets(model, data, TEST)
    seen = history_before(data, TEST)
    distinct = np.array([len(set(seen.of(u))) for u in ranks.user])
    assert (ranks.candidates == data.n_items - distinct).all()
    assert (ranks.rank <= ranks.candidates).all()
    assert not any(i in seen.of(u) for u, i in zip(ranks.user, ranks.item, strict=True))


@every
def test_saved_and_served_models_score_bit_for_bit(name, data, tmp_path):
    train = Train(BACKBONES[name], LOG)
    trained = fit(train, data, facts_of(data), seed=0)
    users = np.arange(0, data.n_users + 1)  # 0: an unknown user
    lists = history_before(data, TEST).lists(users)
    lists[0] = lists[1]
    before = trained.scores(users, lists)
    save_trained(trained, tmp_path)
    loaded = load_trained(tmp_path, train, data)
    assert np.array_equal(before, loaded.scores(users, lists))
    assert np.array_equal(before, load_served(*trained.export()).scores(users, lists))
    assert (loaded.best_epoch, loaded.epochs) == (trained.best_epoch, trained.epochs)
    assert np.ptp(before[0, 1:]) > 0  # the unknown user's history counts


@every
def test_a_frozen_table_stays_as_it_was(name, data):
    backbone = BACKBONES[name]
    model = build(backbone, data)
    model.item_table.weight.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    loader = load_loader(backbone.loader)(data, backbone, 0)
    run_epochs(model, loader, backbone.fit, "test")
    assert torch.equal(model.item_table.weight, before["item_table.weight"])
    assert any(not torch.equal(v, before[k]) for k, v in model.state_dict().items())


@every
def test_the_padding_row_is_never_trained(name, data):
    backbone = BACKBONES[name]
    model = build(backbone, data)
    steps(model, batches_of(backbone, data), 5)
    assert not model.item_table.weight[0].any()
    if getattr(model, "user_table", None) is not None:
        assert not model.user_table.weight[0].any()


@every
def test_equal_seeds_give_equal_weights_and_leave_the_global_stream_alone(name, data):
    train, inputs = Train(BACKBONES[name], LOG), facts_of(data)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first = fit(train, data, inputs, seed=1).export()[1]
    assert torch.equal(torch.rand(1), expected)
    second = fit(train, data, inputs, seed=1).export()[1]
    other = fit(train, data, inputs, seed=2).export()[1]
    assert all(np.array_equal(first[k], second[k]) for k in first)
    assert not np.array_equal(first["item_table.weight"], other["item_table.weight"])
