"""The kinds of losses: each against its formula, and the corrections against the whole catalog."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from llmers_pipelines.models.batches import PairBatch
from llmers_pipelines.models.bprmf import BPRMF
from llmers_pipelines.models.losses_net import ItemLoss, full_cross_entropy, in_batch_others
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.node import canonical
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.loop import load_loader

N, D, M = 6, 3, 4
COUNTS = np.array([0, 9, 4, 1, 1, 3, 0])


def case(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(M, D, generator=generator, dtype=dtype)
    table = torch.randn(N + 1, D, generator=generator, dtype=dtype)
    return states, table, torch.tensor([1, 2, 2, 5])


def test_bce_and_bpr_are_their_formulas():
    states, table, targets = case()
    negative = torch.tensor([3, 4, 6, 1])
    above, below = ((states * table[i]).sum(1) for i in (targets, negative))
    found = ItemLoss("bce")(states, table, targets, negative)
    expected = -(torch.sigmoid(above).log() + torch.sigmoid(-below).log()).mean()
    torch.testing.assert_close(found, expected)
    found = ItemLoss("bpr")(states, table, targets, negative)
    torch.testing.assert_close(found, -torch.sigmoid(above - below).log().mean())
    with pytest.raises(ValueError, match="needs batches with negatives"):
        ItemLoss("bpr")(states, table, targets)
    with pytest.raises(ValueError, match="unknown loss 'cross'"):
        ItemLoss("cross")


def test_every_item_drawn_once_from_a_uniform_q_gives_the_full_softmax(monkeypatch):
    states, table, targets = case()
    loss = ItemLoss("ssm", N, np.ones(N + 1))
    drawn = torch.arange(1, N + 1)
    monkeypatch.setattr(torch, "multinomial", lambda *a, **k: drawn)
    found = loss(states, table, targets)
    torch.testing.assert_close(found, full_cross_entropy(states, table, targets))


def test_the_correction_makes_skewed_draws_an_unbiased_estimate_of_the_catalog():
    states, table, targets = case()
    loss = ItemLoss("ssm", 20_000, COUNTS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = loss(states, table, targets)
        torch.manual_seed(0)
        ids = loss.drawn(targets)[0]
    exact = full_cross_entropy(states, table, targets)
    assert float(found) == pytest.approx(float(exact), rel=0.02)
    share = (ids == 1).double().mean()
    power = (COUNTS[1:] + 1.0) ** 0.75
    assert float(share) == pytest.approx(power[0] / power.sum(), abs=0.01)  # popular ones more
    # without the correction the popular ones would count too much
    plain = torch.logsumexp(torch.cat([(states * table[targets]).sum(1, True),
        (states @ table[ids].T - math.log(len(ids) / N)).masked_fill(ids == targets[:, None],
        -torch.inf)], 1), 1) - (states * table[targets]).sum(1)  # fmt: skip
    assert abs(float(plain.mean() - exact)) > 2 * abs(float(found - exact))


def test_in_batch_counts_each_other_target_by_its_share():
    states, table, targets = case()
    loss = ItemLoss("in_batch", counts=COUNTS)
    share = np.maximum(COUNTS[1:], 1) / np.maximum(COUNTS[1:], 1).sum()
    total = 0.0
    for row, own in enumerate(targets.tolist()):
        own_score = float(states[row] @ table[own])
        z = math.exp(own_score)
        for other in targets.tolist():
            if other != own:
                z += math.exp(float(states[row] @ table[other])) / ((M - 1) * share[other - 1])
        total += math.log(z) - own_score
    assert float(loss(states, table, targets)) == pytest.approx(total / M, rel=1e-6)
    _, weights = in_batch_others(torch.tensor([3]), loss.log_q)  # a batch of one has no others
    assert torch.isfinite(weights).all()
    assert float(loss(states[:1], table, targets[:1])) == pytest.approx(0.0)


@pytest.mark.parametrize("kind", ["ce", "ssm", "in_batch", "bce", "bpr"])
def test_given_scores_stand_for_the_products(kind):
    states, table, targets = case()
    negative = torch.tensor([3, 4, 6, 1])
    loss = ItemLoss(kind, 5, COUNTS)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        one = loss(states, table, targets, negative)
        torch.manual_seed(3)
        two = loss(states, table, targets, negative, states @ table.T)
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize("loss", ["ce", "in_batch", "bce", "bpr", "ssm"])
def test_pair_models_by_product_by_score_and_by_pair_agree(loss):
    data = planted_rings(n_users=8, n_items=20).data
    net = BPRMF(dim=4, loss=loss, l2=0.0, temperature=0.2).build(data, 0)
    user, positive = torch.tensor([1, 2, 3, 4]), torch.tensor([5, 6, 5, 7])
    negative = {"ssm": torch.tensor([[1, 5, 9]])}.get(loss, torch.tensor([[1], [2], [3], [4]]))
    batch = PairBatch(user, positive, None if loss in ("ce", "in_batch") else negative)
    states = net.user_state(batch)
    by_product = net._by_product(batch, states)
    torch.testing.assert_close(net._by_score(batch, states), by_product)
    torch.testing.assert_close(net.pair_losses(batch, states).mean(), by_product)
    if loss == "ce":
        cosines = F.normalize(states, dim=-1) @ F.normalize(net.item_table.weight[1:], dim=-1).T
        expected = F.cross_entropy(cosines / 0.2, positive - 1)
        torch.testing.assert_close(by_product, expected)


@pytest.mark.parametrize("loss", ["bpr", "bce"])
def test_negatives_of_sequences_are_new_to_the_user(loss):
    data = planted_rings(n_users=30, n_items=16, clusters=1, length=(9, 12)).data
    loader = load_loader("sequence")(data, SASRec(loss=loss, max_len=5), 0)
    known = {u: set(data.item[(data.user == u) & (data.split == 0)]) for u in range(1, 31)}
    seen = 0
    for batch in loader.epoch(1):
        for user, row, aim in zip(batch.user, batch.negative, batch.targets, strict=True):
            assert not set(row[aim > 0].tolist()) & known[int(user)]
            assert row.min() >= 1 and row.max() <= data.n_items
            seen += 1
    assert seen >= 30
    assert load_loader("sequence")(data, SASRec(), 0)._unseen is None


def test_a_setting_that_came_later_leaves_the_identity_alone_while_unset():
    def names(component):
        return set(canonical(component, inputs=True)[2])

    assert "loss" not in names(SASRec())
    assert "loss" in names(SASRec(loss="bpr"))
    assert SASRec(loss="bpr") != SASRec()
