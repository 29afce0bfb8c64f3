"""What is special to models of several scenarios: gates, private experts, products of weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from llmers_pipelines.data.training import VALID
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.mmoe import MMoE
from llmers_pipelines.models.ple import PLE
from llmers_pipelines.models.scenario_net import Experts, gate
from llmers_pipelines.models.star import STAR
from llmers_pipelines.models.star_net import PartitionedNorm, StarTower
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.testing.contract import contract_data
from llmers_pipelines.train.clicks import auc
from llmers_pipelines.train.ctr_loader import Loader
from llmers_pipelines.train.loop import fit

SMALL = {
    "mmoe": MMoE(dim=4, mlp=(8, 6), tower=(5,)),
    "ple": PLE(dim=4, mlp=(8, 6), tower=(5,), levels=2),
    "star": STAR(dim=4, mlp=(8, 6), auxiliary=(5,)),
}
kinds = pytest.mark.parametrize(
    "backbone",
    [pytest.param(b, id=n, marks=pytest.mark.proof(n, "equations")) for n, b in SMALL.items()],
)


@pytest.fixture(scope="module")
def data():
    return contract_data("multi_scenario")


def batch_of(data, rows=slice(0, 12)):
    numbers = torch.arange(len(data.user))[rows]
    return Loader(data, SMALL["mmoe"], 0).batch(numbers)


def lively(backbone, data):
    net = backbone.build(data, 0).eval()
    draws = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(std=0.4, generator=draws)
    return net


def mlp(x, layers):
    """Plain layers [(weight (a, b), bias), ...] with ReLU after each."""
    for w, b in layers:
        x = torch.relu(x @ w + b)
    return x


def expert_layers(net, e):
    h = net.tower.first.out_features // net.tower.experts
    mine = slice(e * h, (e + 1) * h)
    first = (net.tower.first.weight[mine].T, net.tower.first.bias[mine])
    grouped = [m for m in net.tower.rest.layers if hasattr(m, "weight")]
    return [first, *((m.weight[e], m.bias[e]) for m in grouped)]


def tower_of(net, s, state):
    *hidden, last = [m for m in net.towers.layers if hasattr(m, "weight")]
    h = mlp(state, [(m.weight[s], m.bias[s]) for m in hidden])
    return (h @ last.weight[s] + last.bias[s]).squeeze(1)


@pytest.mark.proof("mmoe", "equations")
def test_mmoe_is_a_mixture_by_each_scenarios_gate(data):
    net, b = lively(SMALL["mmoe"], data), batch_of(data)
    x = net.embeddings(b).flatten(1)
    experts = [mlp(x, expert_layers(net, e)) for e in range(4)]
    for s in range(2):
        scores = x @ net.gates.weight[4 * s : 4 * s + 4].T
        weights = torch.softmax(scores, 1)
        state = sum(weights[:, [e]] * experts[e] for e in range(4))
        torch.testing.assert_close(net.scenario_logits(b)[:, s], tower_of(net, s, state))


@pytest.mark.proof("ple", "equations")
def test_ple_is_two_levels_of_own_and_shared_experts(data):
    net, b = lively(SMALL["ple"], data), batch_of(data)
    x = net.embeddings(b).flatten(1)
    one = [mlp(x, expert_layers(net, e)) for e in range(6)]  # 2 + 2 private, 2 shared
    seen = ((0, 1, 4, 5), (2, 3, 4, 5), (0, 1, 2, 3, 4, 5))
    states = []
    for group, members in enumerate(seen):
        w, bias = net.gates[0].weights.weight[group], net.gates[0].weights.bias[group]
        weights = torch.softmax((x @ w + bias)[:, members], 1)
        states.append(sum(weights[:, [n]] * one[e] for n, e in enumerate(members)))
    later = [m for m in net.later[0].layers if hasattr(m, "weight")]
    owner = (0, 0, 1, 1, 2, 2)
    two = [mlp(states[owner[e]], [(m.weight[e], m.bias[e]) for m in later]) for e in range(6)]
    assert net.gates[1].groups == 2, "the last level has no shared output"
    for s in range(2):
        w, bias = net.gates[1].weights.weight[s], net.gates[1].weights.bias[s]
        weights = torch.softmax((states[s] @ w + bias)[:, seen[s]], 1)
        state = sum(weights[:, [n]] * two[e] for n, e in enumerate(seen[s]))
        torch.testing.assert_close(net.scenario_logits(b)[:, s], tower_of(net, s, state))


@pytest.mark.proof("ple", "equations")
def test_a_private_expert_serves_its_scenario_alone(data):
    net, b = lively(dataclasses.replace(SMALL["ple"], levels=1), data), batch_of(data)
    before = net.scenario_logits(b)
    with torch.no_grad():
        net.tower.first.weight[:8] += 1  # the first private expert of the first scenario
    after = net.scenario_logits(b)
    assert (after[:, 0] - before[:, 0]).abs().max() > 1e-3
    torch.testing.assert_close(after[:, 1], before[:, 1], atol=0, rtol=0)


@pytest.mark.proof("star", "equations")
def test_star_multiplies_shared_and_own_weights(data):
    net, b = lively(SMALL["star"], data), batch_of(data)
    with torch.no_grad():
        net.norm.mean.normal_()
        net.norm.var.uniform_(0.5, 2)
    x = net.embeddings(b).flatten(1)
    expected = torch.empty(len(x))
    for row, code in enumerate(b.scenario.tolist()):
        s, n = code - 1, net.norm
        z = (x[row] - n.mean[s]) / (n.var[s] + 1e-5).sqrt()
        h = n.gamma * (1 + n.own_gamma[s]) * z + n.beta + n.own_beta[s]
        for number, layer in enumerate(net.tower.layers):
            w = layer.shared.weight * (1 + layer.weight[s])
            h = w @ h + layer.shared.bias + layer.bias[s]
            h = torch.relu(h) if number < 2 else h
        expected[row] = h + net.auxiliary(torch.cat([net.scenario.weight[s], x[row]]).unsqueeze(0))
    torch.testing.assert_close(net.logits(b), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.proof("star", "equations")
def test_star_starts_as_one_shared_net(data):
    net, x = SMALL["star"].build(data, 0).eval(), torch.randn(4, 5 * 4)
    tower = StarTower(20, (6,), "relu", 0.0, 3)
    plain = tower.layers[1].shared(torch.relu(tower.layers[0].shared(x))).squeeze(1)
    for s in range(3):
        torch.testing.assert_close(tower(x, s), plain)
    assert not any(layer.weight.any() or layer.bias.any() for layer in net.tower.layers)


@pytest.mark.proof("star", "equations")
def test_each_scenario_is_normalised_by_its_own_rows(data):
    norm = PartitionedNorm(3, 2)
    x = torch.randn(40, 3) * 3 + 5
    out = norm(x, 1, learn=True)
    torch.testing.assert_close(out, (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt())
    torch.testing.assert_close(norm.mean[1], 0.1 * x.mean(0))
    assert not norm.mean[0].any(), "the other scenario's moments stay"
    assert torch.isfinite(norm(x[:1], 1, learn=True)).all()
    net, b = SMALL["star"].build(data, 0).train(), batch_of(data)
    seen = []
    net.norm.register_forward_hook(lambda m, given, y: seen.append((given[1], len(given[0]))))
    net.logits(b)
    assert sorted(seen) == [(0, 6), (1, 6)], "rows go to their own scenario's net"


@kinds
def test_a_row_is_judged_in_its_scenario_and_an_unknown_one_by_shares(backbone, data):
    share = np.array([0.25, 0.75])
    net, b = lively(backbone, data), batch_of(data)
    net.which[0] = torch.tensor(share)
    ones = torch.ones_like(b.user)
    first, second = (net.logits(dataclasses.replace(b, scenario=ones * code)) for code in (1, 2))
    assert (first - second).abs().max() > 1e-3
    expected = torch.where(b.scenario == 1, first, second)
    torch.testing.assert_close(net.logits(b), expected)
    unknown = net.logits(dataclasses.replace(b, scenario=None))
    torch.testing.assert_close(unknown, 0.25 * first + 0.75 * second)


@kinds
def test_rows_of_one_scenario_leave_the_others_tower_alone(backbone, data):
    net, b = backbone.build(data, 0), batch_of(data)
    net.loss(dataclasses.replace(b, scenario=torch.ones_like(b.user))).backward()
    own = [p for n, p in net.named_parameters() if n.startswith(("towers.", "norm.own_"))]
    own += [p for n, p in net.named_parameters() if n.startswith("tower.layers.") and p.dim() > 2]
    assert own
    for p in own:
        assert p.grad[1].abs().max() == 0
    assert any(p.grad[0].abs().max() > 0 for p in own)


@kinds
def test_balance_weighs_scenarios_and_not_rows(backbone, data):
    b = batch_of(data)
    codes = torch.tensor([1] * 9 + [2] * 3)
    b = dataclasses.replace(b, scenario=codes)
    for balance in (False, True):
        net = lively(dataclasses.replace(backbone, balance=balance), data)
        rows = F.binary_cross_entropy_with_logits(net.logits(b), b.label, reduction="none")
        two = (rows[:9].mean() + rows[9:].mean()) / 2
        torch.testing.assert_close(net.loss(b), two if balance else rows.mean())


@kinds
def test_a_log_without_scenarios_is_refused(backbone):
    with pytest.raises(ValueError, match="multi_scenario split"):
        backbone.build(contract_data("ctr"), 0)


@kinds
def test_a_normalisation_over_all_scenarios_is_refused(backbone, data):
    with pytest.raises(ValueError, match="'dice' would normalise"):
        dataclasses.replace(backbone, act="dice").build(data, 0)


def test_gates_sum_to_one_and_leave_experts_out_in_training():
    torch.manual_seed(0)
    seen = torch.tensor([[True, True, False, True]])
    scores = torch.randn(500, 1, 4)
    plain = gate(scores, 0.5, False, seen)
    torch.testing.assert_close(plain[:, 0, [0, 1, 3]], torch.softmax(scores[:, 0, [0, 1, 3]], 1))
    dropped = gate(scores, 0.5, True, seen)
    torch.testing.assert_close(dropped.sum(-1), torch.ones(500, 1))
    assert not dropped[..., 2].any()
    assert 0.3 < (dropped[:, 0, [0, 1, 3]] == 0).float().mean() < 0.6
    assert torch.isfinite(gate(scores, 0.99, True, seen)).all()


def test_experts_run_side_by_side_as_they_would_alone():
    experts, x = Experts(5, 3, (4, 2), "prelu", 0.0), torch.randn(7, 5)
    out = experts(x)
    assert out.shape == (7, 3, 2)
    for e in range(3):
        mine = slice(4 * e, 4 * e + 4)
        h = F.linear(x, experts.first.weight[mine], experts.first.bias[mine])
        h = F.prelu(h, experts.act.weight[mine])
        layer, act = experts.rest.layers[0], experts.rest.layers[1].act
        h = F.prelu(h @ layer.weight[e] + layer.bias[e], act.weight[2 * e : 2 * e + 2])
        torch.testing.assert_close(out[:, e], h)


@pytest.mark.parametrize("slug", SMALL)
def test_scenarios_that_disagree_are_learned_apart(slug):
    """The same pair is liked in one scenario and disliked in the other."""
    data = contract_data("multi_scenario")
    rng = np.random.default_rng(0)
    codes = rng.integers(1, 3, len(data.user)).astype(np.int32)
    kind = data.item_fields["genre"].codes[data.item]
    label = ((kind == 1) == (codes == 1)).astype(np.float32)
    scenario = dataclasses.replace(data.scenario, codes=codes)
    data = dataclasses.replace(data, scenario=scenario, label=label, rating=label)
    how = Fit(lr=1e-2, batch=32, epochs=25, min_epochs=10, patience=10, metric="auc")
    backbone = dataclasses.replace(SMALL[slug], item_id=False, user_id=False, dropout=0.0, fit=how)
    trained = fit(Train(backbone, Table("splits", task="multi_scenario")), data, {}, seed=0)
    rows = np.flatnonzero(data.split == VALID)
    assert auc(data.label[rows], trained.predict(rows)) > 0.95
