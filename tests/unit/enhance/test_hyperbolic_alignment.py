from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.enhance.hyperbolic_alignment import HyperbolicAlignment
from llmers_pipelines.enhance.hyperbolic_alignment_net import HyperbolicAlignmentHook
from llmers_pipelines.models.batches import PairBatch
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.hgcf import HGCF
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.models.hyperboloid_net import exp0
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.models.seams import check_seams
from llmers_pipelines.plan import PlanError, Table, Train
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.checkpoint_net import Checkpoint
from llmers_pipelines.train.loop import fit

pytestmark = pytest.mark.proof("harec", "equations")

ITEM, USER = Table("item_text"), Table("user_text")
PART = HyperbolicAlignment(USER, ITEM, weight=0.5, rate=0.01)
BACKBONE = HGCF(dim=4, layers=2, negatives=2, fit=Fit(lr=0.5, batch=32, epochs=4, min_epochs=4))
LOG = Table("splits", task="collaborative")


@pytest.fixture(scope="module")
def data():
    return planted_rings(n_users=30, n_items=20).data


def vectors(entity, ids, every=5, width=6):
    rows = np.random.default_rng(len(ids)).standard_normal((len(ids), width)).astype(np.float32)
    return VectorTable(entity, ids.ids, rows, np.arange(len(ids)) % every > 0)


def given(data, **settings):
    return {ITEM: vectors("item", data.items, **settings), USER: vectors("user", data.users)}


class Points:
    """A model of which the points are known."""

    def __init__(self, users, items):
        self._points = users, items

    def points(self):
        return self._points


def hook(sides, weight=0.5):
    made = HyperbolicAlignmentHook(sides, 2, weight, 0.01)
    with torch.no_grad():  # a network that passes (x, y) on, where both are positive
        for layer in (made.network[0], made.network[2]):
            layer.weight.copy_(torch.eye(2)), layer.bias.zero_()
    return made


def test_golden_case():
    """User at the origin, text exp0((.3, .4)): .25. Items at exp0((1, 0)), text the same: 0; its
    twin's text exp0((2, 0)): 1. Batch of u with i1, u with i2, weight .5: .5 (.25 + (0 + 1) / 2).
    """
    users = torch.zeros(2, 2)
    items = exp0(torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]]))
    told = {
        "user": (torch.tensor([[0.0, 0.0], [0.3, 0.4]]), torch.tensor([False, True])),
        "item": (torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]),
                 torch.tensor([False, True, True])),
    }  # fmt: skip
    batch = PairBatch(torch.tensor([1, 1]), torch.tensor([1, 2]), torch.tensor([[2], [1]]))
    model = Points(users, items)
    assert hook(told).extra_loss(model, batch, None).item() == pytest.approx(0.375, abs=1e-3)
    # negatives do not enter, and who is in two pairs counts twice
    twice = PairBatch(torch.tensor([1, 1, 1]), torch.tensor([1, 2, 2]), torch.zeros(3, 1).long())
    expected = 0.5 * (0.25 + 2 / 3)
    assert hook(told).extra_loss(model, twice, None).item() == pytest.approx(expected, abs=1e-3)


def test_those_without_a_text_are_left_out_of_the_mean():
    items = exp0(torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]]))
    told = {"item": (torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 0.0]]),
                     torch.tensor([False, True, False]))}  # fmt: skip
    model = Points(torch.zeros(2, 2), items)
    batch = PairBatch(torch.tensor([1, 1]), torch.tensor([1, 2]), None)
    assert hook(told).extra_loss(model, batch, None).item() == pytest.approx(0.5, abs=1e-3)
    none = PairBatch(torch.tensor([1]), torch.tensor([2]), None)
    assert float(hook(told).extra_loss(model, none, None)) == 0.0


def test_texts_are_frozen_while_points_and_the_network_learn(data):
    model = BACKBONE.build(data, 0)
    attach_parts(model, (PART,), data, given(data), 0)
    made = model.hooks[0]
    before = {n: b.clone() for n, b in made.named_buffers()}
    batch = PairBatch(torch.tensor([2, 3]), torch.tensor([2, 3]), torch.tensor([[5, 6], [7, 8]]))
    loss = model.loss(batch)
    loss.backward()
    assert all(not b.requires_grad and torch.equal(b, before[n]) for n, b in made.named_buffers())
    learnt = [*made.network.parameters(), *model.on_manifold()]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in learnt)
    assert made.user_vectors[1].tolist() == [0.0] * 6 and not made.user_known[1]  # no text of u1


def test_points_come_near_to_their_texts_in_training(data):
    def apart(weight):
        part = HyperbolicAlignment(USER, ITEM, weight=weight, rate=0.01)
        watched = []

        class Watch(torch.nn.Module):
            def extra_loss(self, model, batch, states):
                known = model.hooks[0]
                full = known.weight
                known.weight = 1.0
                watched.append(float(known.extra_loss(model, batch, states).detach()))
                known.weight = full
                return 0.0

        class Watcher(HyperbolicAlignment):
            def attach(self, *_):
                return Watch()

        fit(Train(BACKBONE, LOG, aux=(part, Watcher(USER, ITEM))), data, given(data), seed=0)
        return np.mean(watched[-4:]) / np.mean(watched[:2])

    assert apart(1.0) < min(0.6, apart(1e-9))


def test_it_trains_in_bfloat16_nearly_as_in_float32(data):
    """The network's products are narrow; points and distances stay float32."""
    how = dataclasses.replace(BACKBONE.fit, precision="bfloat16")
    half = dataclasses.replace(BACKBONE, fit=how)
    full, narrow = (fit(Train(b, LOG, aux=(PART,)), data, given(data), seed=0).epochs
                    for b in (BACKBONE, half))  # fmt: skip
    assert narrow[0]["train_loss"] != full[0]["train_loss"]
    assert narrow[0]["train_loss"] == pytest.approx(full[0]["train_loss"], rel=0.02)
    assert narrow[-1]["train_loss"] < narrow[0]["train_loss"]


def test_a_killed_training_ends_in_the_same_bits(data, tmp_path):
    """Both optimizers, the points' momentum and the network's, go on where they were."""
    node = Train(BACKBONE, LOG, aux=(PART,))
    whole = fit(node, data, given(data), seed=0)

    def kill(record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(node, data, given(data), seed=0, progress=kill, checkpoint=Checkpoint(tmp_path, 0.0))
    kept = Checkpoint(tmp_path, 0.0)
    again = fit(node, data, given(data), seed=0, checkpoint=kept)
    assert kept.resumed_at == 2
    assert any("network" in name for name in whole.state)
    assert all(np.array_equal(value, again.state[name]) for name, value in whole.state.items())


def test_permuted_texts_train_another_model_and_ids_are_joined_by_name(data):
    own = fit(Train(BACKBONE, LOG, aux=(PART,)), data, given(data), seed=0)
    tables = given(data)
    order = np.random.default_rng(0).permutation(len(data.items))
    table = tables[ITEM]
    tables[ITEM] = VectorTable("item", tuple(table.ids[n] for n in order), table.vectors[order],
                               table.mask[order])  # fmt: skip
    shuffled = fit(Train(BACKBONE, LOG, aux=(PART,)), data, tables, seed=0)
    history = [data.item[:4]]
    np.testing.assert_allclose(own.scores([1], history), shuffled.scores([1], history), atol=1e-5)
    tables[ITEM] = VectorTable("item", table.ids, table.vectors[order], table.mask[order])
    other = fit(Train(BACKBONE, LOG, aux=(PART,)), data, tables, seed=0)
    assert not np.allclose(own.scores([1], history)[:, 1:], other.scores([1], history)[:, 1:])


def test_what_does_not_fit_is_refused_with_the_mend(data):
    with pytest.raises(PlanError, match=r"HyperbolicAlignment needs the seam 'points'.*LightGCN"):
        check_seams(LightGCN(), (PART,), "x")
    with pytest.raises(PlanError, match="needs `users` or `items`"):
        HyperbolicAlignment()
    with pytest.raises(PlanError, match="rate"):
        HyperbolicAlignment(USER, ITEM, rate=0.0)
    with pytest.raises(ValueError, match="different widths"):
        attach_parts(BACKBONE.build(data, 0), (PART,), data, given(data, width=7), 0)
    assert math.isclose(HyperbolicAlignment(USER, ITEM).inert().weight, 0.0)
