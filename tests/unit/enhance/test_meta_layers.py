"""Layers that are written from hidden states."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.derive.scenario_facts import ScenarioFacts
from llmers_pipelines.enhance.meta_layers import MetaLayers
from llmers_pipelines.enhance.meta_layers_net import (
    MetaNetwork,
    meta_layer,
    meta_stack,
    standardised,
    user_states,
)
from llmers_pipelines.models.deepfm import DeepFM
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.models.mmoe import MMoE
from llmers_pipelines.models.ple import PLE
from llmers_pipelines.models.seams import check_seams
from llmers_pipelines.models.served import fold
from llmers_pipelines.models.star import STAR
from llmers_pipelines.plan import PlanError, Table
from llmers_pipelines.testing.contract import contract_data
from llmers_pipelines.train.ctr_loader import Loader

pytestmark = pytest.mark.proof("llm4msr", "equations")
USER, SCENARIO = Table("told_users"), Table("told_scenarios")
KINDS = {
    "star": STAR(dim=4, mlp=(8, 6), auxiliary=(5,), dropout=0.0),
    "mmoe": MMoE(dim=4, mlp=(8, 6), tower=(5,), dropout=0.0),
    "ple": PLE(dim=4, mlp=(8, 6), tower=(5,), levels=2, dropout=0.0),
}
kinds = pytest.mark.parametrize("name", KINDS)
PART = MetaLayers(user=USER, scenario=SCENARIO, width=3, layers=2, hidden=5)


@pytest.fixture(scope="module")
def data():
    return contract_data("multi_scenario")


@pytest.fixture(scope="module")
def inputs(data):
    rng = np.random.default_rng(0)
    mask = np.arange(len(data.users)) % 3 > 0
    users = rng.normal(size=(len(data.users), 6)).astype(np.float32)
    scenarios = rng.normal(size=(2, 6)).astype(np.float32)
    return {
        USER: VectorTable("user", data.users.ids, users, mask),
        SCENARIO: VectorTable("scenario", data.scenario.vocabulary, scenarios, np.ones(2, bool)),
    }


def attached(name, data, inputs, part=PART):
    net = KINDS[name].build(data, 0)
    attach_parts(net, (part,), data, inputs, 0)
    return net


def batch_of(data):
    return Loader(data, KINDS["mmoe"], 0).batch(torch.arange(24))


def test_a_layer_by_hand():
    x, weight = torch.tensor([[1.0, 2.0]]), torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    assert meta_layer(x, weight, torch.tensor([[0.5, -0.5]])).tolist() == [[2.5, 0.5]]
    written = torch.tensor([[0.0, 1.0, 1.0, 0.0, 0.5, -0.5]])
    wanted = x + torch.nn.functional.gelu(torch.tensor([[2.5, 0.5]]))
    torch.testing.assert_close(meta_stack(x, written, 1), wanted)


def test_equal_states_write_equal_layers_and_so_many_values():
    torch.manual_seed(0)
    net = MetaNetwork(4, width=3, layers=2, hidden=5)
    assert not net(torch.randn(2, 4)).any(), "it starts as no layer at all"
    with torch.no_grad():
        for last in net.last:
            last.weight.normal_()
    h = torch.randn(1, 4)
    out = net(torch.cat([h, h, h + 1]))
    assert out.shape == (3, 2 * (3 * 3 + 3))
    torch.testing.assert_close(out[0], out[1])  # rows of a small product may round differently
    assert not torch.allclose(out[0], out[2])


@kinds
def test_step_0_is_the_backbone_and_then_both_levels_learn(name, data, inputs):
    """The slope of the activation at 0 is not 0: a stack that starts as nothing can leave it."""
    net, plain = attached(name, data, inputs), KINDS[name].build(data, 0)
    batch = batch_of(data)
    torch.testing.assert_close(net.eval().logits(batch), plain.eval().logits(batch))
    net.train()
    net.loss(batch).backward()
    hook = net.hooks[0]
    for meta in (hook.user_meta, hook.scenario_meta):
        assert all(float(last.weight.grad.abs().sum()) > 0 for last in meta.last)
    assert hook.users.grad is None and hook.scenarios.grad is None


@kinds
def test_written_tables_serve_what_the_networks_wrote(name, data, inputs):
    net = attached(name, data, inputs)
    with torch.no_grad():
        for p in net.hooks[0].parameters():
            p.normal_(std=0.4)
    batch = batch_of(data)
    unknown = dataclasses.replace(batch, user=batch.user * 0, scenario=batch.scenario * 0)
    net.eval()
    with torch.no_grad():
        before = [net.logits(b) for b in (batch, unknown)]
        served = fold(net)
        after = [served.logits(b) for b in (batch, unknown)]
    for a, b in zip(after, before, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert not [n for n in served.state_dict() if "meta" in n or n.endswith("hooks.0.users")]
    plain = KINDS[name].build(data, 0).eval()
    assert not torch.allclose(before[0], plain.logits(batch))


def test_a_user_without_a_state_has_the_mean_of_the_scenario(data, inputs):
    rows, place = user_states(inputs[USER], data, "told")
    real = inputs[USER].mask
    assert place[1:].tolist() == [i + 1 if r else 0 for i, r in enumerate(real)]
    size = len(data.users) + 1
    train = data.split == 0
    for code in (1, 2):
        who = np.unique(data.user[train & (data.scenario.codes == code)])
        who = [u for u in who if real[u - 1]]
        torch.testing.assert_close(rows[size + code], rows[who].mean(0))
    torch.testing.assert_close(rows[size], torch.zeros(6), atol=1e-6, rtol=0)


def test_states_are_standardised_and_constant_columns_vanish():
    rows = torch.tensor([[9.0, 5.0], [1.0, 5.0], [3.0, 5.0]])
    real = torch.tensor([False, True, True])
    assert standardised(rows, real).tolist() == [[0, 0], [-1, 0], [1, 0]]


def test_wrong_inputs(data, inputs):
    with pytest.raises(PlanError, match="`user` or `scenario`"):
        MetaLayers()
    with pytest.raises(PlanError, match="'logit'"):
        check_seams(DeepFM(), (PART,), "x")
    swapped = {USER: inputs[SCENARIO], SCENARIO: inputs[USER]}
    with pytest.raises(ValueError, match="vectors of scenarios, expected vectors of users"):
        attached("mmoe", data, swapped)


def test_facts_are_counted_on_training_rows(data):
    table, info = ScenarioFacts().apply((data,), log=data)
    assert info == {"scenarios": 2}
    train = data.split == 0
    for code, row in enumerate(table.to_pylist(), start=1):
        own = train & (data.scenario.codes == code)
        assert row["scenario_id"] == data.scenario.vocabulary[code - 1]
        assert row["interactions"] == own.sum() and row["users"] == len(set(data.user[own]))
        assert row["items"] == len(set(data.item[own]))
        assert row["liked"] == pytest.approx(data.label[own].mean(), abs=1e-4)
        other = set(data.user[train & ~own])
        both = len(set(data.user[own]) & other) / len(set(data.user[own]))
        assert row["shared_users"] == pytest.approx(both, abs=1e-4)
