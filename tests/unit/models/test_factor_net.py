from __future__ import annotations

import numpy as np
import pytest
import torch

from llmers_pipelines.data.training import TEST, VALID
from llmers_pipelines.models.batches import PairBatch
from llmers_pipelines.models.bprmf import BPRMF
from llmers_pipelines.models.factor_net import FactorNet
from llmers_pipelines.models.graph_net import Graph, training_graph
from llmers_pipelines.models.histories import history_before
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.models.ranking_net import scoring_batch
from llmers_pipelines.models.served import fold
from llmers_pipelines.testing.planted import planted_rings

pytestmark = [pytest.mark.proof("lightgcn", "equations"), pytest.mark.proof("bprmf", "equations")]


def small_graph():
    return Graph(np.array([1, 1, 2]), np.array([1, 2, 2]), n_users=2, n_items=2)


@pytest.mark.parametrize("kind", [BPRMF, LightGCN])
def test_in_batch_each_other_positive_weighs_one_over_its_share(kind):
    """``-log e^s / (e^s + sum_j e^(s_j) / ((M - 1) q_j))`` over the batch's other M - 1."""
    data = planted_rings(n_users=20, n_items=12).data
    net = kind(dim=4, loss="in_batch", l2=0.0, temperature=0.5).build(data, 0)
    counts = np.bincount(data.item[data.split == 0], minlength=data.n_items + 1)
    share = counts / counts.sum()
    user, items = [1, 2, 3, 4, 5], [3, 5, 5, 7, 9]
    assert all(counts[items]) and len(set(counts[items])) > 1
    with torch.no_grad():
        states = net.user_state(PairBatch(torch.tensor(user), torch.tensor(items), None))
        outputs = net.item_output()
        losses = []
        for state, own in zip(states, items, strict=True):
            s = {i: torch.cosine_similarity(state, outputs[i], 0) / 0.5 for i in set(items)}
            others = sum(s[i].exp() / (4 * share[i]) for i in items if i != own)
            losses.append(-(s[own].exp() / (s[own].exp() + others)).log())
        found = net.loss(PairBatch(torch.tensor(user), torch.tensor(items), None))
    torch.testing.assert_close(found, torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)


def test_propagation_golden_case():
    graph = small_graph()
    dense = graph.matrix.to_dense()
    assert float(dense[1, 3 + 1]) == pytest.approx(0.7071, abs=5e-5)  # u1, i1
    assert float(dense[1, 3 + 2]) == pytest.approx(0.5)
    assert torch.equal(dense, dense.T)
    start = torch.tensor([0.0, 1, 2, 0, 3, 4])[:, None]  # padding, users, padding, items
    mean = (sum(graph.layers(start, 2)) / 3)[[1, 2, 4, 5], 0]
    np.testing.assert_allclose(mean, [2.1928, 2.0607, 2.2071, 3.3250], atol=5e-5)


def test_the_gradient_of_propagation_is_that_of_the_dense_product():
    graph = small_graph()
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weight = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad((sum(graph.layers(x, 2)) / 3 * weight).sum(), x)[0]
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


def test_bprmf_may_train_for_hundreds_of_epochs():
    """A pair is one step of many; one that is stopped early is an underfit baseline."""
    how = BPRMF().fit
    assert how.epochs >= 300
    assert how.patience * how.eval_every >= 20


def test_bpr_loss_by_hand_with_its_penalty():
    model = net("bpr")
    model.l2 = 0.1
    batch = PairBatch(torch.tensor([1, 2]), torch.tensor([3, 4]), torch.tensor([[5], [1]]))
    p, q = model.user_table.weight, model.item_table.weight
    gap = (p[[1, 2]] * (q[[3, 4]] - q[[5, 1]])).sum(1)
    squares = p[[1, 2]].square().sum() + q[[3, 4, 5, 1]].square().sum()
    expected = -torch.nn.functional.logsigmoid(gap).mean() + 0.05 * squares / 2
    torch.testing.assert_close(model.loss(batch), expected)


def test_the_penalty_with_a_graph_is_on_the_initial_vectors_of_the_batch():
    """E^0 of the batch, not what is propagated, and no other row (LightGCN, eq. 15)."""
    model = LightGCN(dim=4, layers=2, loss="bpr", l2=0.1).build(
        planted_rings(n_users=20, n_items=20).data, 0
    )
    batch = PairBatch(torch.tensor([1, 2]), torch.tensor([3, 4]), torch.tensor([[5], [1]]))
    with_penalty = model.loss(batch)
    model.l2 = 0.0
    without = model.loss(batch)
    p, q = model.user_table.weight, model.item_table.weight
    squares = p[[1, 2]].square().sum() + q[[3, 4, 5, 1]].square().sum()
    torch.testing.assert_close(with_penalty - without, 0.05 * squares / 2)
    gradient = torch.autograd.grad(with_penalty - without, [p, q])
    torch.testing.assert_close(gradient[0][[1, 2]], 0.05 * p[[1, 2]])
    assert not gradient[0][3:].any() and not gradient[1][6:].any()


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


def lightgcn(loss="bpr"):
    data = planted_rings(n_users=20, n_items=20).data
    model = LightGCN(dim=4, layers=2, loss=loss).build(data, 0)
    with torch.no_grad():
        model.keep()
        model.release()
    return data, model.eval()


def test_scoring_from_the_training_history_is_the_trained_vector():
    data, model = lightgcn()
    users = torch.arange(1, 21)
    history = history_before(data, VALID).lists(users.tolist())
    trained = model.user_state(PairBatch(users, users))
    scored = model.user_state(scoring_batch(users.numpy(), history, None))
    torch.testing.assert_close(scored, trained)
    doubled = [np.concatenate([h, h]) for h in history]  # an edge counts once
    torch.testing.assert_close(
        model.user_state(scoring_batch(users.numpy(), doubled, None)), trained
    )


def test_more_history_and_unknown_users_follow_the_propagation_rule():
    data, model = lightgcn()
    layers = model.graph.layers(torch.cat([model.user_table.weight, model.item_table.weight]), 2)
    degree = model.graph.degree
    found = model.user_state(scoring_batch(np.array([3, 0]), [np.array([5, 9])] * 2, None))
    expected = model.user_table.weight[3] / 3
    for item in (5, 9):
        node = data.n_users + 1 + item
        part = (layers[0][node] + layers[1][node]) / 3 / (2 * degree[node]) ** 0.5
        expected = expected + part
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(found[1], expected - model.user_table.weight[3] / 3)


@pytest.mark.parametrize("loss", ["bpr", "ssm"])
def test_folding_leaves_plain_tables_that_score_alike(loss):
    data, model = lightgcn(loss)
    served = fold(model)
    assert served.graph is None
    users = np.arange(21)
    batch = scoring_batch(users, history_before(data, TEST).lists(users), None)
    torch.testing.assert_close(
        served.score(served.user_state(batch)), model.score(model.user_state(batch)).detach()
    )
    again = fold(served)
    assert torch.equal(again.score(again.user_state(batch)), served.score(served.user_state(batch)))


def test_without_a_graph_an_unknown_user_is_the_mean_of_the_history():
    model = net("bpr")
    states = model.user_state(scoring_batch(np.array([2, 0]), [np.array([1, 4, 4])] * 2, None))
    torch.testing.assert_close(states[0], model.user_table.weight[2])
    torch.testing.assert_close(states[1], model.item_table.weight[[1, 4]].mean(0))


def test_unknown_objective_is_named():
    with pytest.raises(ValueError, match="unknown loss 'hinge'"):
        net("hinge")


@pytest.mark.parametrize("objective", ["bpr", "ssm"])
def test_a_hook_on_scores_is_part_of_the_loss(objective):
    class Factor(torch.nn.Module):
        def __init__(self, by):
            super().__init__()
            self.by = by

        def score(self, model, nxt, state, ids):
            return self.by * nxt(state, ids)

    model = net(objective)
    negative = torch.tensor([[5], [1]]) if objective == "bpr" else torch.tensor([[5, 3]])
    batch = PairBatch(torch.tensor([1, 2]), torch.tensor([3, 4]), negative)
    plain = model.loss(batch)
    model.hooks.append(Factor(1.0))
    torch.testing.assert_close(model.loss(batch), plain)
    model.hooks[0].by = 3.0
    assert not torch.allclose(model.loss(batch), plain)


def test_the_mean_of_propagation_is_its_own_gradient():
    graph = training_graph(planted_rings(n_users=12, n_items=8).data)
    dense = graph.matrix.to_dense().double()
    x = torch.randn(graph.size, 5, requires_grad=True)
    weight = torch.randn(graph.size, 5)
    mean = graph.mean(x, 3)
    powers = [torch.linalg.matrix_power(dense, k) for k in range(4)]
    expected = sum(p @ x.detach().double() for p in powers) / 4
    assert torch.allclose(mean.double(), expected, atol=1e-6)
    found = torch.autograd.grad((mean * weight).sum(), x)[0]
    assert torch.allclose(found.double(), sum(p.T @ weight.double() for p in powers) / 4, atol=1e-6)
