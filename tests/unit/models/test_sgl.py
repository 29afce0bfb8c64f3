"""SGL: the contrast by hand, thinned graphs, and a part that training alone needs."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from llmers_pipelines.models.batches import PairBatch
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.models.served import fold
from llmers_pipelines.models.sgl import SGL
from llmers_pipelines.models.sgl_net import info_nce
from llmers_pipelines.testing.planted import planted_rings

pytestmark = pytest.mark.proof("sgl", "equations")

SMALL = SGL(dim=4, layers=2, loss="bpr")
BATCH = PairBatch(torch.tensor([1, 2, 2, 3]), torch.tensor([5, 6, 5, 7]), torch.ones(4, 1).long())


@pytest.fixture(scope="module")
def data():
    return planted_rings(n_users=30, n_items=20).data


def test_info_nce_by_hand():
    one = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    two = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    half = math.sqrt(0.5)
    first = math.log(math.exp(1 / 0.5) + math.exp(half / 0.5)) - 1 / 0.5
    second = math.log(math.exp(0.0) + math.exp(half / 0.5)) - half / 0.5
    assert float(info_nce(one, two, 0.5)) == pytest.approx((first + second) / 2)


def test_a_high_temperature_would_end_the_contrast_so_the_default_is_low(data):
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.randn(64, 8, generator=generator, requires_grad=True) for _ in range(2))

    def pull(tau):
        return float(torch.autograd.grad(info_nce(one, two, tau), one)[0].norm())

    assert pull(5.0) < 0.1 * pull(SGL().tau)
    assert SGL().tau <= 0.5


@pytest.mark.parametrize("augment", ["edge", "node", "walk"])
def test_thinned_graphs_are_normalised_after_the_drop_and_drawn_anew(data, augment):
    net = dataclasses.replace(SMALL, augment=augment, drop=0.3).build(data, 0)
    hook = net.hooks[0]
    hook.begin_epoch(net, 1)
    views = hook._views
    whole = net.graph.matrix.to_dense() > 0
    for graphs in views:
        assert len(graphs) == 2
        assert (graphs[0] is graphs[1]) == (augment != "walk")
        for graph in graphs:
            matrix = graph.matrix.to_dense()
            adjacency = (matrix > 0).double()
            degree = adjacency.sum(1).clamp(min=1)
            scale = degree.rsqrt()
            expected = scale[:, None] * adjacency * scale
            torch.testing.assert_close(matrix.double(), expected, atol=1e-6, rtol=1e-5)
            assert not ((matrix > 0) & ~whole).any()
            share = adjacency.sum() / whole.sum()
            assert 0.55 < share < 0.85 if augment != "node" else 0.3 < share < 0.7
    first = views[0][0].matrix.to_dense()
    assert not torch.equal(first > 0, views[1][0].matrix.to_dense() > 0)
    hook.begin_epoch(net, 2)
    assert not torch.equal(first > 0, hook._views[0][0].matrix.to_dense() > 0)
    hook.begin_epoch(net, 1)
    assert torch.equal(first, hook._views[0][0].matrix.to_dense())


def test_the_contrast_is_over_the_distinct_users_and_items_of_the_batch(data):
    net = SMALL.build(data, 0)
    hook = net.hooks[0]
    hook.begin_epoch(net, 1)
    vectors = []
    for graphs in hook._views:
        layers = [torch.cat([net.user_table.weight, net.item_table.weight])]
        for graph in graphs:
            layers.append(graph.matrix.to_dense() @ layers[-1])
        vectors.append(torch.stack(layers).mean(0))
    users, items = torch.tensor([1, 2, 3]), torch.tensor([5, 6, 7]) + data.n_users + 1
    expected = 0.1 * sum(info_nce(vectors[0][i], vectors[1][i], 0.2) for i in (users, items))
    torch.testing.assert_close(hook.extra_loss(net, BATCH, None), expected)
    plain = LightGCN(dim=4, layers=2, loss="bpr").build(data, 0)
    torch.testing.assert_close(net.loss(BATCH), plain.loss(BATCH) + expected)


def test_without_its_weight_it_is_lightgcn_and_nothing_of_it_is_served(data):
    net = dataclasses.replace(SMALL, contrast=0.0).build(data, 0)
    plain = LightGCN(dim=4, layers=2, loss="bpr").build(data, 0)
    net.hooks[0].begin_epoch(net, 1)
    assert torch.equal(net.loss(BATCH), plain.loss(BATCH))
    served = fold(SMALL.build(data, 0))
    assert not len(served.hooks)
    assert set(served.state_dict()) == set(fold(plain).state_dict())


def test_the_gradient_reaches_the_tables_through_both_views(data):
    net = dataclasses.replace(SMALL, l2=0.0).build(data, 0)
    net.hooks[0].begin_epoch(net, 1)
    net.hooks[0].extra_loss(net, BATCH, None).backward()
    assert net.user_table.weight.grad[1:].abs().sum() > 0
    assert net.item_table.weight.grad[1:].abs().sum() > 0
    assert np.isfinite(float(net.item_table.weight.grad.sum()))


def test_wrong_settings_are_refused(data):
    with pytest.raises(ValueError, match="unknown augment 'noise'"):
        dataclasses.replace(SMALL, augment="noise").build(data, 0)
    with pytest.raises(ValueError, match="drop is 1"):
        dataclasses.replace(SMALL, drop=1.0).build(data, 0)
