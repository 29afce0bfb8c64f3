"""KAR's adaptor: the card's numbers, missing knowledge, the off switch, folding."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from llmers_pipelines.data.training import IdMap
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.enhance.hybrid_experts import HybridExperts
from llmers_pipelines.enhance.hybrid_experts_net import Adaptor, Experts, mix, side_vectors
from llmers_pipelines.models.deepfm import DeepFM
from llmers_pipelines.models.din import DIN
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.models.served import fold
from llmers_pipelines.plan import PlanError, Table
from llmers_pipelines.testing.contract import contract_data
from llmers_pipelines.train.ctr_loader import Loader

pytestmark = pytest.mark.proof("kar", "equations")

USERS, ITEMS = Table("users"), Table("items")
FIT = Fit(lr=1e-2, batch=8, metric="auc")
KINDS = [
    DIN(dim=4, attention=8, mlp=(16, 8), dropout=0.3, fit=FIT),
    DeepFM(dim=4, mlp=(16, 8), dropout=0.3, fit=FIT),
]
kinds = pytest.mark.parametrize("backbone", KINDS, ids=["din", "deepfm"])
PART = HybridExperts(user=USERS, item=ITEMS, shared=1, specific=2, hidden=8, out=4)


@pytest.fixture(scope="module")
def data():
    return contract_data("ctr")


def vectors(entity, ids, width=6, seed=0, missing=()):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((len(ids), width)).astype(np.float32)
    mask = np.array([i not in missing for i in ids])
    rows[~mask] = 0
    return VectorTable(entity, tuple(ids), rows, mask)


@pytest.fixture
def inputs(data):
    return {
        USERS: vectors("user", data.users.ids, missing=("u3",)),
        ITEMS: vectors("item", data.items.ids, seed=1, missing=("i5",)),
    }


def attached(backbone, data, inputs, part=PART):
    torch.manual_seed(0)
    net = backbone.build(data, 0)
    attach_parts(net, () if part is None else (part,), data, inputs, 0)
    return net


def test_the_gates_weigh_the_experts_as_on_the_card():
    logits = torch.tensor([[0.0, math.log(3)]])
    assert mix(logits, torch.tensor([[[1.0], [2.0]]])).item() == pytest.approx(1.75)


def test_identical_experts_do_not_depend_on_the_gate():
    one = torch.randn(5, 1, 3).expand(5, 4, 3)
    torch.testing.assert_close(mix(torch.randn(5, 4), one), one[:, 0])


def test_the_number_of_weights_is_that_of_the_card():
    adaptor = Adaptor({"user": 768, "item": 768}, shared=2, specific=5, hidden=128, out=32)
    gates = sum(p.numel() for p in adaptor.gate.parameters())
    assert gates == 10_766
    assert sum(p.numel() for p in adaptor.parameters()) == 1_241_486


def test_experts_that_run_together_are_separate_two_layer_networks():
    experts = Experts(3, 5, 4, 2)
    x = torch.randn(7, 5)
    out = experts(x)
    for k in range(3):
        first = nn.functional.linear(
            x, experts.first.weight[4 * k : 4 * k + 4], experts.first.bias[4 * k : 4 * k + 4]
        )
        expected = torch.relu(torch.relu(first) @ experts.weight[k] + experts.bias[k])
        torch.testing.assert_close(out[:, k], expected)


def test_shared_experts_serve_both_sides_and_the_others_one():
    adaptor = Adaptor({"user": 5, "item": 5}, shared=1, specific=1, hidden=4, out=2)
    for module in (adaptor.shared, adaptor.specific["user"], adaptor.specific["item"]):
        nn.init.constant_(module.bias, 1.0)  # so that every ReLU is alive somewhere
    x = torch.randn(9, 5)
    for loss, silent in (("user", "item"), ("item", "user")):
        adaptor.zero_grad()
        adaptor(loss, x).sum().backward()
        assert adaptor.shared.weight.grad.any()
        assert adaptor.specific[loss].weight.grad.any()
        assert adaptor.specific[silent].weight.grad is None or not (
            adaptor.specific[silent].weight.grad.any()
        )


@kinds
def test_a_row_without_knowledge_gets_the_default_vector_and_no_bit(backbone, data, inputs):
    net = attached(backbone, data, inputs)
    hook = net.hooks[0]
    with torch.no_grad():
        hook.default["item"].fill_(0.5)
    rows = hook.rows("item", torch.tensor([0, 4, 5]))  # padding, i4, i5
    assert rows[:, -1].tolist() == [0, 1, 0]
    assert (rows[[0, 2], :-1] == 0.5).all()
    assert not (rows[1, :-1] == 0.5).all()


def test_the_default_vector_is_learned(data, inputs):
    net = attached(KINDS[0], data, inputs)
    for batch in Loader(data, KINDS[0], 0).rows(np.arange(len(data.user))):
        net.loss(batch).backward()
    hook = net.hooks[0]
    assert hook.default["user"].grad.any()
    assert hook.default["item"].grad.any()
    assert not any("vectors" in name for name, _ in hook.named_parameters())


def trained(net, backbone, data, steps=20):
    loader = Loader(data, backbone, 0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    batches = (b for number in range(1, 99) for b in loader.epoch(number))
    torch.manual_seed(3)
    losses = []
    for _, batch in zip(range(steps), batches, strict=False):
        optimizer.zero_grad()
        loss = net.loss(batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@kinds
@pytest.mark.parametrize("gate", [None, 0.0, 1.0])
def test_absent_or_inert_it_leaves_the_backbone_alone(backbone, data, inputs, gate):
    part = None if gate is None else dataclasses.replace(PART, gate=gate)
    base, net = backbone.build(data, 0), attached(backbone, data, inputs, part)
    torch.testing.assert_close(
        {k: v for k, v in net.state_dict().items() if k in base.state_dict()},
        dict(base.state_dict()),
    )  # also with gate 1 the base starts from the same numbers
    one, two = trained(base, backbone, data), trained(net, backbone, data)
    same = np.allclose(one, two, rtol=0, atol=1e-6)
    assert same == (gate != 1.0)
    if gate != 1.0:
        for name, value in base.state_dict().items():
            torch.testing.assert_close(net.state_dict()[name], value, rtol=0, atol=1e-6)


@kinds
def test_folding_keeps_the_scores_and_drops_the_text(backbone, data, inputs):
    net = attached(backbone, data, inputs)
    trained(net, backbone, data)
    net.eval()
    batch = Loader(data, backbone, 0).batch(torch.arange(50))
    with torch.no_grad():
        before = net.logits(batch)
        served = fold(net)
        torch.testing.assert_close(served.logits(batch), before, rtol=1e-5, atol=1e-6)
    (hook,) = served.hooks
    assert {k: tuple(v.shape) for k, v in hook.state_dict().items()} == {
        "user": (data.n_users + 1, 5), "item": (data.n_items + 1, 5)
    }  # fmt: skip


def test_vectors_are_joined_by_id(data, inputs):
    backwards = {
        node: VectorTable(t.entity, t.ids[::-1], t.vectors[::-1].copy(), t.mask[::-1].copy())
        for node, t in inputs.items()
    }
    one, two = (attached(KINDS[0], data, i).hooks[0] for i in (inputs, backwards))
    ids = torch.arange(data.n_items + 1)
    torch.testing.assert_close(one.rows("item", ids), two.rows("item", ids))


def test_the_item_side_alone_is_one_column(data, inputs):
    part = dataclasses.replace(PART, user=None)
    net = attached(KINDS[0], data, {ITEMS: inputs[ITEMS]}, part)
    assert net.columns.widths == [5]
    batch = Loader(data, KINDS[0], 0).batch(torch.arange(9))
    assert [c.shape for c in net.feature_columns(batch)] == [(9, 5)]


@pytest.mark.parametrize("scale", [0.01, 1.0, 50.0])
def test_standardized_vectors_do_not_depend_on_the_scale_of_the_encoder(scale):
    ids = IdMap(("a", "b", "c"))
    table = vectors("item", ("a", "b", "d"), width=64)
    moved = dataclasses.replace(table, vectors=table.vectors * scale + 3 * scale)
    one, mask = side_vectors(table, ids, "item", "x", True)
    two, _ = side_vectors(moved, ids, "item", "x", True)
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)
    assert mask.tolist() == [False, True, True, False]
    assert not one[0].any() and not one[3].any()
    assert one[mask].square().mean().item() == pytest.approx(1, abs=1e-3)
    raw, _ = side_vectors(moved, ids, "item", "x", False)
    np.testing.assert_array_equal(raw[1:3], moved.vectors[:2])


def test_unsuitable_vectors_are_refused_by_name(data, inputs):
    def attach(**changes):
        attached(KINDS[0], data, {**inputs, **{ITEMS: vectors(*changes["item"])}})

    with pytest.raises(ValueError, match="vectors of users, expected vectors of items"):
        attach(item=("user", data.users.ids))
    with pytest.raises(ValueError, match=r"none of its 1 rows is one of the items.*zz"):
        attach(item=("item", ("zz",)))
    refused = vectors("item", data.items.ids)
    refused = dataclasses.replace(refused, mask=np.zeros_like(refused.mask))
    with pytest.raises(ValueError, match=r"has knowledge: \d+ are items of the log, but no") as why:
        attached(KINDS[0], data, {**inputs, ITEMS: refused})
    assert "quarantine" in str(why.value) and "against" not in str(why.value)
    with pytest.raises(ValueError, match=r"different widths.*one encoder"):
        attach(item=("item", data.items.ids, 9))
    table = vectors("item", data.items.ids)
    table.vectors[7, 2] = np.nan
    with pytest.raises(ValueError, match="'i8' is not finite"):
        attached(KINDS[0], data, {**inputs, ITEMS: table})


def test_settings_without_experts_or_items_are_refused():
    with pytest.raises(PlanError, match="needs `item`"):
        HybridExperts(user=USERS)
    with pytest.raises(PlanError, match="at least one expert"):
        HybridExperts(item=ITEMS, shared=0, specific=0)
