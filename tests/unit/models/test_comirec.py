"""ComiRec-SA against loops over interests, its routing, and what padding must not change."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from llmers_pipelines.models import comirec_net
from llmers_pipelines.models.batches import SequenceBatch
from llmers_pipelines.models.comirec import ComiRec
from llmers_pipelines.models.ranking_net import scoring_batch
from llmers_pipelines.models.served import export, fold
from llmers_pipelines.registry.manifest import BundleError
from llmers_pipelines.registry.ranker import load_ranker
from llmers_pipelines.testing.planted import planted_rings

pytestmark = pytest.mark.proof("comirec", "equations")

SMALL = ComiRec(dim=3, interests=2, inner=5, dropout=0.0, max_len=8)


@pytest.fixture(scope="module")
def data():
    return planted_rings(n_users=12, n_items=20).data


def built(data, **settings):
    net = dataclasses.replace(SMALL, **settings).build(data, 0).eval()
    with torch.no_grad():
        net.distances.normal_()
        net.item_table.weight[1:].normal_()
    return net


def interests(net, history):
    """(K, D) from the equations, interest by interest."""
    h = net.item_table.weight[history]
    out = []
    for k in range(net.interests):
        logits = torch.stack([
            net.pick.weight[k] @ torch.tanh(net.up.weight @ row) + net.distances[k, age]
            for age, row in zip(range(len(h) - 1, -1, -1), h, strict=True)
        ])  # fmt: skip
        mixed = logits.softmax(0) @ h
        out.append(mixed if net.out is None else net.out(mixed))
    return torch.stack(out)


@pytest.mark.parametrize("mapped", [True, False])
def test_states_and_scores_are_those_of_the_equations(data, mapped):
    net = built(data, mapped=mapped)
    history = [3, 7, 1, 7]
    with torch.no_grad():
        state = net.user_state(scoring_batch(np.array([1]), [np.array(history)], 8))
        expected = interests(net, history)
        torch.testing.assert_close(state[0].view(2, 3), expected)
        best = (expected @ net.item_table.weight.T).amax(0)
        torch.testing.assert_close(net.score(state)[0], best)
        ids = torch.tensor([4, 9])
        torch.testing.assert_close(net.score(state, ids)[0], best[ids])


def test_a_state_depends_neither_on_padding_nor_on_what_follows(data):
    net = built(data)
    lists = [np.array([3, 4]), np.arange(1, 8)]
    user = torch.tensor([1])
    with torch.no_grad():
        both = net.user_state(scoring_batch(np.array([1, 2]), lists, 8))
        alone = net.user_state(scoring_batch(np.array([1]), lists[:1], 8))
        torch.testing.assert_close(both[:1], alone)
        one = net.hidden_states(SequenceBatch(user, torch.tensor([[3, 5, 7, 9]])))
        two = net.hidden_states(SequenceBatch(user, torch.tensor([[3, 5, 7, 2]])))
    assert torch.equal(one[:, :3], two[:, :3]) and not torch.allclose(one[:, 3], two[:, 3])


def test_the_paper_trains_the_interest_that_is_nearest_to_the_target(data):
    net = built(data, routing="target")
    states, targets = torch.randn(5, 6), torch.tensor([1, 4, 4, 9, 20])
    table, total = net.item_table.weight, torch.zeros(())
    for state, target in zip(states.view(5, 2, 3), targets, strict=True):
        best = state[(state @ table[target]).argmax()]
        total = total + F.cross_entropy((table[1:] @ best)[None], target[None] - 1)
    torch.testing.assert_close(net._main_loss(states, targets, None), total / 5)


@pytest.mark.parametrize("loss", ["ce", "bpr"])
def test_by_default_training_and_serving_score_alike_in_chunks_too(data, loss, monkeypatch):
    net = built(data, loss=loss)
    states, targets = torch.randn(70, 6, requires_grad=True), torch.arange(70) % 20 + 1
    negative = (targets % 20) + 1
    scores = net.score(states)
    if loss == "ce":
        expected = F.cross_entropy(scores[:, 1:], targets - 1)
    else:
        above, below = (scores.gather(1, i[:, None])[:, 0] for i in (targets, negative))
        expected = -F.logsigmoid(above - below).mean()
    wanted = torch.autograd.grad(expected, (states, net.item_table.weight))
    monkeypatch.setattr(comirec_net, "SCORES", 1)  # 32 rows at a time
    found = net._main_loss(states, targets, negative)
    torch.testing.assert_close(found, expected)
    for a, b in zip(torch.autograd.grad(found, (states, net.item_table.weight)), wanted,
                    strict=True):  # fmt: skip
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_an_index_over_products_is_refused(data):
    ranker = load_ranker(*export(fold(built(data))), "sequential", data.n_items)
    with pytest.raises(BundleError, match="neither by dot product nor by cosine"):
        ranker.searched_by(np.array([1]), [np.array([3, 4])])


def test_an_unknown_routing_is_refused(data):
    with pytest.raises(ValueError, match="unknown routing 'soft'"):
        built(data, routing="soft")
