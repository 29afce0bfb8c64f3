"""What is special to DIEN: two recurrences, attention with softmax, and the auxiliary loss."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from llmers_pipelines.models.batches import CtrBatch
from llmers_pipelines.models.dien import DIEN
from llmers_pipelines.models.dien_net import AUGRU
from llmers_pipelines.testing.contract import contract_data

pytestmark = pytest.mark.proof("dien", "equations")

SMALL = DIEN(dim=4, mlp=(8, 4))


@pytest.fixture(scope="module")
def data():
    return contract_data("ctr")


def batch(history, item=3):
    n = len(history)
    return CtrBatch(
        user=torch.tensor([1] * n), item=torch.tensor([item] * n), history=torch.tensor(history),
        history_rating=None, label=torch.ones(n), rows=None,
    )  # fmt: skip


def test_a_step_of_the_augru_by_hand():
    gru = AUGRU(1)
    with torch.no_grad():
        gru.input.weight.copy_(torch.tensor([[0.5], [1.0], [2.0]]))  # r, u, c
        gru.input.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
        gru.state.weight.copy_(torch.tensor([[1.5], [-1.0], [0.7]]))
    sigmoid = lambda z: 1 / (1 + math.exp(-z))  # noqa: E731
    h = 0.0
    for x, a in ((0.4, 0.25), (-1.0, 0.75)):
        r, u = sigmoid(0.5 * x + 0.1 + 1.5 * h), sigmoid(x - 0.2 - h)
        c = math.tanh(2 * x + 0.3 + r * 0.7 * h)
        h = (1 - a * u) * h + a * u * c
    out = gru(torch.tensor([[[0.4], [-1.0]]]), torch.tensor([[0.25, 0.75]]))
    assert out.item() == pytest.approx(h, rel=1e-5)


def test_full_attention_is_a_gru_and_none_keeps_the_state():
    torch.manual_seed(0)
    ours, theirs = AUGRU(4), torch.nn.GRU(4, 4, batch_first=True)
    with torch.no_grad():  # theirs: h = (1 - z) n + z h, so z = 1 - u
        theirs.weight_ih_l0.copy_(ours.input.weight)
        theirs.weight_hh_l0.copy_(ours.state.weight)
        theirs.bias_hh_l0.zero_()
        ours.input.bias.normal_()
        theirs.bias_ih_l0.copy_(ours.input.bias)
        for p in (theirs.weight_ih_l0, theirs.weight_hh_l0, theirs.bias_ih_l0):
            p[4:8] *= -1
    x = torch.randn(3, 5, 4)
    torch.testing.assert_close(ours(x, torch.ones(3, 5)), theirs(x)[0][:, -1])
    late = torch.cat([x, torch.randn(3, 2, 4)], 1)
    a = torch.cat([torch.ones(3, 5), torch.zeros(3, 2)], 1)
    torch.testing.assert_close(ours(late, a), ours(x, torch.ones(3, 5)))


def test_attention_sums_to_one_over_the_real_positions(data):
    net = SMALL.build(data, 0)
    b = batch([[0, 0, 4, 5], [0, 0, 0, 0]])
    h, c = net.history(b)
    mask = b.history > 0
    states = net.interests(h, mask)
    a = net.weights(states, c, mask)
    scores = torch.einsum("ld,de,e->l", states[0, 2:], net.attention.weight, c[0])
    torch.testing.assert_close(a[0, 2:], torch.softmax(scores, 0))
    assert a[0, :2].tolist() == [0, 0]
    assert a[1].tolist() == [0, 0, 0, 0]


def test_the_logit_is_that_of_a_loop_over_the_history(data):
    """GRU over the history, attention of the candidate, AUGRU, then the tower of all that."""
    net = SMALL.build(data, 0).eval()
    seen = []
    net.tower.first.register_forward_hook(lambda m, x, y: seen.append((x[0], y)))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.evolve.parameters():
            p.normal_(generator=draw)
        logit = net.logits(batch([[0, 0, 4, 5, 9]], item=7))
        h = net.items(torch.tensor([4, 5, 9])).flatten(1)
        c = net.items(torch.tensor([7])).flatten()
        states = net.extract(h.unsqueeze(0))[0][0]
        scores = torch.stack([s @ net.attention.weight @ c for s in states])
        a = scores.exp() / scores.exp().sum()
        assert a.max() < 0.99  # or attention would decide nothing
        (w_r, w_u, w_c), (b_r, b_u, b_c), (s_r, s_u, s_c) = (
            x.chunk(3) for x in (net.evolve.input.weight, net.evolve.input.bias,
                                 net.evolve.state.weight)
        )  # fmt: skip
        u = torch.zeros_like(c)
        for t, x in enumerate(states):
            reset = torch.sigmoid(w_r @ x + b_r + s_r @ u)
            update = a[t] * torch.sigmoid(w_u @ x + b_u + s_u @ u)
            u = (1 - update) * u + update * torch.tanh(w_c @ x + b_c + reset * (s_c @ u))
        profile = net.users(torch.tensor([1])).flatten()
        x = torch.cat([u, c, profile])
        torch.testing.assert_close(seen[0][0][0], x)
        torch.testing.assert_close(logit, net.tower(x[None]))
    assert not torch.allclose(u, states[-1], atol=1e-3)


def test_states_are_read_from_the_oldest_item_to_the_newest(data):
    net = SMALL.build(data, 0)
    b = batch([[0, 0, 4, 5, 6]])
    h, _ = net.history(b)
    states = net.interests(h, b.history > 0)
    torch.testing.assert_close(states[0, 2:], net.extract(h[:, 2:])[0][0])
    assert not states[0, :2].any()
    changed, _ = net.history(batch([[0, 0, 4, 5, 9]]))  # the future changes no earlier state
    torch.testing.assert_close(
        net.interests(changed, b.history > 0)[:, :4], states[:, :4], atol=0, rtol=0
    )


def test_the_auxiliary_loss_asks_each_state_for_the_next_item(data, monkeypatch):
    net = SMALL.build(data, 0)
    b = batch([[0, 4, 5, 6], [0, 0, 0, 7]])
    h, _ = net.history(b)
    states = net.interests(h, b.history > 0)
    monkeypatch.setattr(net, "negatives", lambda positive: positive + 2)
    item = lambda i: net.items(torch.tensor([i])).flatten()  # noqa: E731
    terms = [
        -F.logsigmoid(states[0, t] @ item(true)) - F.logsigmoid(-(states[0, t] @ item(true + 2)))
        for t, true in ((1, 5), (2, 6))
    ]
    torch.testing.assert_close(net.auxiliary_loss(states, b), sum(terms) / 2)
    alone = batch([[0, 7]])
    assert net.auxiliary_loss(torch.zeros(1, 2, 8), alone).item() == 0


def test_negatives_are_never_the_positive(data):
    net = SMALL.build(data, 0)
    positive = torch.randint(1, data.n_items + 1, (20_000,))
    negative = net.negatives(positive)
    assert (negative != positive).all()
    assert negative.min() >= 1
    assert negative.max() <= data.n_items
    counts = torch.bincount((negative - positive) % data.n_items)[1:]
    assert counts.min() > 0.8 * counts.float().mean()


def test_a_log_of_one_item_has_no_negatives_and_no_auxiliary_loss(data):
    alone = dataclasses.replace(data, item=np.full_like(data.item, 3))
    net = dataclasses.replace(SMALL, dropout=0.0).build(alone, 0)
    assert net.others.tolist() == [3]
    b = batch([[0, 3, 3, 3], [3, 3, 3, 3]])
    expected = F.softplus(-net.logits(b)).mean()
    torch.testing.assert_close(net.loss(b), expected)
    net.loss(b).backward()
    with pytest.raises(RuntimeError):  # never the positive as its own negative
        net.negatives(torch.tensor([3]))


def test_of_two_items_each_is_the_negative_of_the_other(data):
    two = dataclasses.replace(data, item=np.where(data.item % 2, 3, 7))
    net = SMALL.build(two, 0)
    assert net.negatives(torch.tensor([3, 7, 7, 3])).tolist() == [7, 3, 3, 7]


def test_the_loss_is_cross_entropy_and_the_weighted_auxiliary_loss(data):
    b = batch([[4, 5, 6]])
    losses = {}
    for weight in (0.0, 1.0, 2.0):
        net = dataclasses.replace(SMALL, auxiliary=weight, dropout=0.0).build(data, 0).eval()
        torch.manual_seed(1)
        losses[weight] = net.loss(b).item()
    assert losses[0.0] == pytest.approx(F.softplus(-net.logits(b)).item(), rel=1e-5)
    step = losses[1.0] - losses[0.0]
    assert step == pytest.approx(2 * math.log(2), abs=0.1)
    assert losses[2.0] - losses[1.0] == pytest.approx(step, rel=1e-3)
