"""HSTU: pointwise attention by hand, and what masks and padding must not change."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from llmers_pipelines.models.batches import SequenceBatch
from llmers_pipelines.models.hstu import HSTU
from llmers_pipelines.models.hstu_net import pointwise_attention
from llmers_pipelines.models.ranking_net import scoring_batch
from llmers_pipelines.testing.planted import planted_rings

pytestmark = pytest.mark.proof("hstu", "equations")


@pytest.fixture(scope="module")
def data():
    return planted_rings(n_users=12, n_items=20).data


def built(data, **settings):
    given = {"dim": 6, "inner": 4, "attention": 8, "heads": 2, "layers": 2, "max_len": 8} | settings
    net = HSTU(dropout=0.0, **given).build(data, 0).eval()
    with torch.no_grad():
        for block in net.blocks:
            block.project.weight.normal_(0, 0.3)
            block.distances.normal_()
    return net


def silu(x):
    return x / (1 + math.exp(-x))


def test_two_positions_by_hand():
    q, k = torch.tensor([[[[1.0], [2.0]]]]), torch.tensor([[[[1.0], [-1.0]]]])
    v = torch.tensor([[[[10.0, 0.0], [0.0, 10.0]]]])
    bias = torch.tensor([[[0.5, 9.0], [0.25, 0.5]]])
    allowed = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]])
    found = pointwise_attention(q, k, v, bias, allowed, 4)[0, 0]
    first = [silu(1.5) / 4 * 10, 0.0]  # what is not allowed is 0, whatever its bias
    second = [silu(2.25) / 4 * 10, silu(-1.5) / 4 * 10]
    torch.testing.assert_close(found, torch.tensor([first, second]))
    assert found[1, 1] < 0  # no softmax: weights may be negative and do not sum to 1


def test_states_are_those_of_loops_over_positions(data):
    net = built(data)
    history = [3, 7, 1, 7, 2]
    n = len(history)
    with torch.no_grad():
        x = net.item_table.weight[history] * 6**0.5 + net.places[:n].flip(0)
        for block in net.blocks:
            mixed = F.silu(F.layer_norm(x, (6,), eps=1e-6) @ block.project.weight.T)
            u, v, q, k = mixed.split([4, 4, 8, 8], 1)
            out = torch.zeros(n, 4)
            for head in range(2):
                for t in range(n):
                    for s in range(t + 1):
                        logit = q[t, 4 * head : 4 * head + 4] @ k[s, 4 * head : 4 * head + 4]
                        weight = F.silu(logit + block.distances[head, t - s]) / net.max_len
                        out[t, 2 * head : 2 * head + 2] += weight * v[s, 2 * head : 2 * head + 2]
            x = x + block.out(u * F.layer_norm(out, (4,), eps=1e-6))
        state = net.user_state(scoring_batch(np.array([1]), [np.array(history)], 8))[0]
        torch.testing.assert_close(state, F.normalize(x[-1], dim=0) / 0.05, atol=1e-4, rtol=1e-4)
        cosines = F.normalize(net.item_table.weight, dim=1) @ F.normalize(x[-1], dim=0)
        torch.testing.assert_close(net.score(state[None])[0], cosines / 0.05, atol=1e-4, rtol=1e-4)


def test_padding_changes_nothing_in_training_and_evaluation(data):
    net = built(data)
    lists = [np.array([3, 4]), np.arange(1, 8)]
    with torch.no_grad():
        both = net.user_state(scoring_batch(np.array([1, 2]), lists, 8))
        alone = net.user_state(scoring_batch(np.array([1]), lists[:1], 8))
        torch.testing.assert_close(both[:1], alone, atol=1e-4, rtol=1e-4)
        items = torch.tensor([[0, 0, 3, 4], [1, 2, 3, 4]])
        trained = net.train().user_state(
            SequenceBatch(torch.ones(2, dtype=torch.int64), items, items)
        )
    torch.testing.assert_close(trained[0, -1], alone[0], atol=1e-4, rtol=1e-4)


def test_a_later_item_never_changes_an_earlier_state(data):
    net = built(data)
    user = torch.tensor([1])
    with torch.no_grad():
        one = net.hidden_states(SequenceBatch(user, torch.tensor([[3, 5, 7, 9, 11]])))
        two = net.hidden_states(SequenceBatch(user, torch.tensor([[3, 5, 7, 2, 11]])))
    assert torch.equal(one[:, :3], two[:, :3])
    assert not torch.allclose(one[:, 3:], two[:, 3:])


def test_an_empty_history_has_finite_scores_and_gradients(data):
    net = built(data)
    state = net.user_state(scoring_batch(np.array([0]), [np.zeros(0, np.int64)], 8))
    scores = net.score(state)
    assert torch.isfinite(scores).all()
    scores.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_heads_must_divide_the_widths(data):
    with pytest.raises(ValueError, match="must be multiples of heads 3"):
        built(data, heads=3)
