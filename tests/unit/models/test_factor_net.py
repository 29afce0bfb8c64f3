from __future__ import annotations

import numpy as np
import pytest
import torch

from llmers_pipelines.models.batches import PairBatch
from llmers_pipelines.models.factor_net import FactorNet
from llmers_pipelines.models.graph_net import Graph, training_graph
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.models.served import fold
from llmers_pipelines.testing.planted import planted_rings


def small_graph():
    return Graph(np.array([1, 1, 2]), np.array([1, 2, 2]), n_users=2, n_items=2)


def test_propagation_golden_case():
    graph = small_graph()
    dense = graph.matrix.to_dense()
    assert float(dense[1, 3 + 1]) == pytest.approx(0.7071, abs=5e-5)  # u1, i1
    assert float(dense[1, 3 + 2]) == pytest.approx(0.5)
    assert torch.equal(dense, dense.T)
    start = torch.tensor([0.0, 1, 2, 0, 3, 4])[:, None]  # padding, users, padding, items
    mean = graph.propagate(start, 2)[[1, 2, 4, 5], 0]
    np.testing.assert_allclose(mean, [2.1928, 2.0607, 2.2071, 3.3250], atol=5e-5)


def test_the_gradient_of_propagation_is_that_of_the_dense_product():
    graph = small_graph()
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weight = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad((graph.propagate(x, 2) * weight).sum(), x)[0]
    dense = graph.matrix.to_dense()
    mean = (x + dense @ x + dense @ dense @ x) / 3
    torch.testing.assert_close(found, torch.autograd.grad((mean * weight).sum(), x)[0])


def test_the_graph_has_training_edges_alone():
    data = planted_rings(n_users=20, n_items=20).data
    dense = training_graph(data).matrix.to_dense()
    train = {(u, i) for u, i, s in zip(data.user, data.item, data.split, strict=True) if s == 0}
    assert int((dense > 0).sum()) == 2 * len(train)
    assert all(dense[u, data.n_users + 1 + i] > 0 for u, i in train)
    assert not dense.diagonal().any()  # no self-loops


def net(objective, **more):
    torch.manual_seed(0)
    return FactorNet(
        n_users=3, n_items=5, dim=4, objective=objective, temperature=0.5, l2=0.0, table_std=1.0,
        **more,
    )  # fmt: skip


def test_bpr_loss_by_hand_with_its_penalty():
    model = net("bpr")
    model.l2 = 0.1
    batch = PairBatch(torch.tensor([1, 2]), torch.tensor([3, 4]), torch.tensor([[5], [1]]))
    p, q = model.user_table.weight, model.item_table.weight
    gap = (p[[1, 2]] * (q[[3, 4]] - q[[5, 1]])).sum(1)
    squares = p[[1, 2]].square().sum() + q[[3, 4, 5, 1]].square().sum()
    expected = -torch.nn.functional.logsigmoid(gap).mean() + 0.05 * squares / 2
    torch.testing.assert_close(model.loss(batch), expected)


def test_softmax_loss_by_hand_leaves_out_the_positive_among_the_negatives():
    model = net("ssm")
    batch = PairBatch(torch.tensor([1]), torch.tensor([3]), torch.tensor([[5, 3]]))
    cos = torch.nn.functional.cosine_similarity(
        model.user_table.weight[1], model.item_table.weight[[3, 5]]
    )
    expected = -(2 * cos).log_softmax(0)[0]
    torch.testing.assert_close(model.loss(batch), expected)
    score = model.score(model.user_table.weight[[1]])
    torch.testing.assert_close(score[0, [3, 5]], 2 * cos)


def test_propagation_is_computed_again_in_each_step():
    data = planted_rings(n_users=20, n_items=20).data
    model = LightGCN(dim=4, layers=2).build(data, 0)
    before = model.item_output()
    with torch.no_grad():
        model.user_table.weight.add_(1)
    assert not torch.allclose(model.item_output(), before)


def test_folding_leaves_plain_tables_that_score_alike():
    data = planted_rings(n_users=20, n_items=20).data
    model = LightGCN(dim=4, layers=2, loss="bpr").build(data, 0)
    batch = PairBatch(torch.arange(21), torch.arange(21))
    served = fold(model)
    assert served.graph is None
    torch.testing.assert_close(
        served.score(served.user_state(batch)), model.score(model.user_state(batch)).detach()
    )


def test_unknown_objective_is_named():
    with pytest.raises(ValueError, match="unknown loss 'hinge'"):
        net("hinge")
