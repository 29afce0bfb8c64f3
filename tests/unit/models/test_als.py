"""iALS against the dense objective and its gradient, and its fold-in of histories."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from llmers_pipelines.data.training import TEST, TRAIN
from llmers_pipelines.models import als_net
from llmers_pipelines.models.als import ALS
from llmers_pipelines.models.als_net import half_step
from llmers_pipelines.models.popularity import Popularity
from llmers_pipelines.models.ranking_net import rank_metric, rank_targets, scoring_batch
from llmers_pipelines.testing.planted import planted_rings, renumbered_items

pytestmark = pytest.mark.proof("als", "equations")

SMALL = ALS(dim=4, alpha=0.3, l2=0.05, iterations=5)


@pytest.fixture(scope="module")
def data():
    return planted_rings(n_users=30, n_items=20).data


def fitted(data, **settings):
    net = dataclasses.replace(SMALL, **settings).build(data, 0)
    net.fit(data, {})
    return net


def dense(data):
    x = np.zeros((data.n_users + 1, data.n_items + 1))
    rows = data.split == TRAIN
    x[data.user[rows], data.item[rows]] = 1
    return x


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("block", [1, 1 << 22])
def test_a_half_step_is_the_minimum_of_the_objective(data, power, block, monkeypatch):
    monkeypatch.setattr(als_net, "BLOCK_FLOATS", block)
    x = dense(data)
    y = torch.randn(data.n_items + 1, 4, dtype=torch.float64)
    y[0] = 0
    user, item = np.nonzero(x)
    start = np.searchsorted(user, np.arange(data.n_users + 2))
    found = half_step(start, torch.from_numpy(item), y, 0.3, 0.05, power, data.n_items)
    assert not found[0].any()
    u = found.clone().requires_grad_()
    seen, scores = torch.from_numpy(x), u @ y.T
    ridge = 0.05 * torch.from_numpy((x.sum(1) + 0.3 * data.n_items) ** power)
    loss = (seen * (1 - scores) ** 2).sum() + 0.3 * scores.square().sum()
    loss = loss + (ridge[:, None] * u.square()).sum()
    gradient = torch.autograd.grad(loss, u)[0]
    assert float(gradient.abs().max()) < 1e-9  # convex in u: this is the minimum


def test_every_iteration_lowers_the_objective(data):
    x = torch.from_numpy(dense(data)).float()
    values = []
    for iterations in (1, 2, 4, 8):
        net = fitted(data, iterations=iterations, decay="mean")
        y = net.items
        by_item = x.sum(0) + 0.3 * data.n_users
        lists = [np.flatnonzero(row) for row in x.numpy()[1:]]
        u = net.user_state(scoring_batch(np.arange(1, data.n_users + 1), lists, None))
        scores = u @ y.T
        value = (x[1:] * (1 - scores) ** 2).sum() + 0.3 * scores.square().sum()
        value += 0.05 * ((x[1:].sum(1) + 0.3 * data.n_items)[:, None] * u.square()).sum()
        value += 0.05 * (by_item[1:, None] * y[1:].square()).sum()
        values.append(float(value))
    assert values == sorted(values, reverse=True) and values[0] > values[-1]


def test_a_user_is_the_solution_for_the_given_history(data):
    net = fitted(data, decay="mean")
    y = net.items.numpy().astype(np.float64)
    history = [3, 7, 3, 9]  # an item counts once
    matrix = 0.3 * y.T @ y + 0.05 * (3 + 0.3 * data.n_items) * np.eye(4)
    matrix += sum(np.outer(y[i], y[i]) for i in (3, 7, 9))
    expected = np.linalg.solve(matrix, y[[3, 7, 9]].sum(0))
    lists = [np.array(history), np.arange(1, 9)]
    state = net.user_state(scoring_batch(np.array([0, 1]), lists, None))
    np.testing.assert_allclose(state[0].numpy(), expected, atol=1e-5)
    net.keep()
    again = net.user_state(scoring_batch(np.array([0]), lists[:1], None))
    torch.testing.assert_close(again, state[:1])  # neither padding nor other rows count
    nothing = net.user_state(scoring_batch(np.array([0]), [np.zeros(0, np.int64)], None))
    assert not nothing.any()


def test_decay_weighs_what_was_seen_by_its_newest_age(data):
    net = fitted(data, decay="harmonic")
    weights = net._weights(torch.tensor([[0, 3, 7, 3]]))
    torch.testing.assert_close(weights, torch.tensor([[0.0, 0.0, 0.5, 1.0]]))
    with pytest.raises(ValueError, match="unknown decay"):
        fitted(data, decay="weekly")


def test_it_beats_popularity_and_does_not_depend_on_how_items_are_numbered(data):
    big = planted_rings().data
    hits = rank_metric("hr@10", rank_targets(fitted(big, dim=8), big, TEST))
    popular = Popularity().build(big, 0)
    popular.fit(big, {})
    assert hits > 1.5 * rank_metric("hr@10", rank_targets(popular, big, TEST))
    other, _ = renumbered_items(big, seed=2)
    again = rank_metric("hr@10", rank_targets(fitted(other, dim=8), other, TEST))
    assert again == pytest.approx(hits, abs=0.1)  # the start is another draw


def test_wrong_settings_are_refused(data):
    with pytest.raises(ValueError, match="l2 0 must be above 0"):
        fitted(data, l2=0)
