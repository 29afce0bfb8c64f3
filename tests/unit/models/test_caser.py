"""Caser against loops over its filters, and what padding and unknown users must not change."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from llmers_pipelines.models.batches import SequenceBatch
from llmers_pipelines.models.caser import Caser
from llmers_pipelines.models.ranking_net import scoring_batch
from llmers_pipelines.testing.planted import planted_rings

pytestmark = pytest.mark.proof("caser", "equations")

SMALL = Caser(dim=3, length=4, horizontal=2, vertical=2, targets=2, dropout=0.0, max_len=9)


@pytest.fixture(scope="module")
def data():
    return planted_rings(n_users=12, n_items=20).data


def image_state(net, history):
    """z of the newest L items, from loops over filters and positions."""
    rows = net.length
    image = torch.zeros(rows, net.config["dim"])
    real = [False] * rows
    for at, item in enumerate(history[-rows:][::-1]):
        image[rows - 1 - at], real[rows - 1 - at] = net.item_table.weight[item], True
    parts = []
    for conv in net.horizontal:
        height = conv.kernel_size[0]
        for k in range(conv.out_channels):
            best = 0.0
            for first in range(rows - height + 1):
                if any(real[first : first + height]):
                    value = conv.bias[k] + (conv.weight[k].T * image[first : first + height]).sum()
                    best = max(best, float(torch.relu(value)))
            parts.append(best)
    for k in range(net.vertical.shape[0]):
        parts += (net.vertical[k, 0] @ image).tolist()
    return torch.relu(net.dense.weight @ torch.tensor(parts) + net.dense.bias)


def test_states_and_scores_are_those_of_the_equations(data):
    net = SMALL.build(data, 0).eval()
    histories = [[3, 7, 1, 9, 4, 2], [5], [2, 9], [1, 2, 3, 4, 5, 6, 7]]
    users = np.array([1, 2, 3, 4])
    lists = [np.array(h) for h in histories]
    with torch.no_grad():
        state = net.user_state(scoring_batch(users, lists, 9))
        scores = net.score(state)
        for row, history in enumerate(histories):
            z = image_state(net, history)
            torch.testing.assert_close(state[row, 4:], z, atol=1e-5, rtol=1e-5)
            w, bias = net.output_table[:, 1:], net.output_table[:, 0]
            expected = w @ torch.cat([net.user_table.weight[users[row]], z]) + bias
            torch.testing.assert_close(scores[row], expected, atol=1e-5, rtol=1e-5)


def test_each_position_has_the_state_of_the_history_up_to_it(data):
    net = SMALL.build(data, 0).eval()
    items = torch.tensor([[0, 0, 3, 7, 1, 9, 4]])
    with torch.no_grad():
        states = net.hidden_states(SequenceBatch(torch.ones(1, dtype=torch.int64), items))[0]
        for end in range(3, 8):
            torch.testing.assert_close(states[end - 1], image_state(net, items[0, 2:end].tolist()))


def test_padding_and_the_other_rows_change_nothing(data):
    net = SMALL.build(data, 0).eval()
    users = np.array([1, 2])
    with torch.no_grad():
        both = net.user_state(scoring_batch(users, [np.array([3]), np.arange(1, 9)], 9))
        alone = net.user_state(scoring_batch(users[:1], [np.array([3])], 9))
    torch.testing.assert_close(both[:1], alone)


def test_the_filters_are_no_longer_than_most_histories():
    """Filters over rows that most people do not have would learn padding."""
    counts = np.bincount(planted_rings(n_users=200, n_items=50).data.user)[1:]
    assert Caser().length <= 5 <= np.median(counts)


def test_an_unknown_user_is_scored_from_the_history_and_users_differ(data):
    net = SMALL.build(data, 0).eval()
    lists = [np.array([3, 4])] * 3
    with torch.no_grad():
        scores = net.score(net.user_state(scoring_batch(np.array([0, 1, 2]), lists, 9)))
    assert torch.isfinite(scores).all()
    assert not torch.allclose(scores[1], scores[2], atol=1e-4)
    shared = dataclasses.replace(SMALL, personal=False).build(data, 0).eval()
    with torch.no_grad():
        scores = shared.score(shared.user_state(scoring_batch(np.array([0, 1, 2]), lists, 9)))
    assert torch.equal(scores[0], scores[1]) and torch.equal(scores[1], scores[2])


def test_a_position_is_trained_on_its_next_items(data):
    net = SMALL.build(data, 0).eval()
    batch = SequenceBatch(
        torch.tensor([1]), torch.tensor([[0, 3, 7, 1]]), torch.tensor([[0, 7, 1, 9]]),
        torch.tensor([0]),
    )  # fmt: skip
    states = net.user_state(batch)
    picked, targets, _ = net._supervised(batch, states)
    assert targets.tolist() == [7, 1, 1, 9, 9]
    for state, at in zip(picked, [1, 1, 2, 2, 3], strict=True):
        assert torch.equal(state, states[0, at])


def test_an_empty_history_has_a_finite_state(data):
    net = SMALL.build(data, 0).eval()
    state = net.user_state(scoring_batch(np.array([0]), [np.zeros(0, np.int64)], 9))
    assert torch.isfinite(net.score(state)).all()
