"""States of a deep teacher in a shallow student, layer by layer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch

from llmers_pipelines.enhance.layer_distillation import DeepSupervision, LayerDistillation
from llmers_pipelines.enhance.layer_distillation_net import (
    HeadsHook,
    LayerHook,
    state_loss,
    teacher_states,
)
from llmers_pipelines.enhance.projected_items import ProjectedItems
from llmers_pipelines.models.batches import SequenceBatch
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.models.layer_blocks import block_layers
from llmers_pipelines.models.ranking_net import scoring_batch
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.models.served import fold
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.recipe import discover
from llmers_pipelines.teach.teacher import positions_of, prefixes, states_table
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.arms import control_inputs
from llmers_pipelines.train.loop import fit
from llmers_pipelines.train.sequence_loader import Loader

pytestmark = pytest.mark.proof("slmrec", "equations")
LOG, TOLD, ITEMS = Table("splits", task="sequential"), Table("told"), Table("items")
DEEP = SASRec(dim=8, layers=4, inner=16, max_len=20, dropout=0.0,
              fit=Fit(lr=3e-3, batch=8, epochs=2, min_epochs=1))  # fmt: skip
PART = LayerDistillation(teacher=TOLD, blocks=2)


@pytest.fixture(scope="module")
def rings():
    return planted_rings(n_users=20, n_items=20, seed=2)


def test_the_loss_by_hand():
    student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    assert float(state_loss(student, teacher, 1.0, 0.0)) == pytest.approx(1.0)
    assert float(state_loss(student, teacher, 0.0, 1.0)) == pytest.approx(2.2361, abs=1e-4)
    both = float(state_loss(student, teacher, 1.0, 0.1))
    assert both == pytest.approx(1.22361, abs=1e-4)
    # the cosine does not see the teacher's scale, the distance does
    one, two = torch.randn(5, 3), torch.randn(5, 3)
    assert torch.allclose(state_loss(one, two, 1, 0), state_loss(one, 7 * two, 1, 0))
    assert not torch.allclose(state_loss(one, two, 0, 1), state_loss(one, 7 * two, 0, 1))


def test_blocks_end_at_layers_not_at_hidden_states():
    assert block_layers(32, 4) == (8, 16, 24, 32)
    assert block_layers(8, 4) == (2, 4, 6, 8)
    assert block_layers(7, 2) == (3, 6)  # counted over 8 hidden states it would be 4, 8
    with pytest.raises(ValueError, match="3 blocks of a model with 2 layers"):
        block_layers(2, 3)


def states_by_hand(net, data, blocks):
    """The states of ``net`` after every training position, each from a batch of its own."""
    user, position = positions_of(data)
    net.keeps_layers = True
    made = []
    for u, history in zip(user, prefixes(data, user, position), strict=True):
        net.hidden_states(scoring_batch(np.array([u]), [history], 20))
        made.append(np.stack([net.layer_states[n][0, -1].numpy() for n in blocks]))
    return states_table(data, user, position, blocks, np.stack(made).astype(np.float16))


def test_a_student_that_is_its_teacher_has_nothing_to_learn(rings):
    """Rows are shuffled on disk; the join is by user and position, over windows of any length."""
    data = rings.data
    net = DEEP.build(data, 0).eval()
    with torch.no_grad():
        told = states_by_hand(net, data, (2, 4))
        order = np.random.default_rng(0).permutation(told.num_rows)
        hook = LayerHook(teacher_states(told.take(order), data, 2, "told"), (2, 4), 8, PART)
        for short in (20, 3):
            backbone = dataclasses.replace(DEEP, max_len=short)
            for batch in Loader(data, backbone, 0).epoch(1):
                if short < 20 and int(batch.begin.max()):
                    continue  # a window that was cut does not see what the teacher saw
                states = net.user_state(batch)
                assert float(hook.extra_loss(net, batch, states)) == pytest.approx(0, abs=2e-3)
        wrong = LayerHook(teacher_states(told, data, 2, "told"), (1, 3), 8, PART)
        batch = next(iter(Loader(data, DEEP, 0).epoch(1)))
        assert float(wrong.extra_loss(net, batch, net.user_state(batch))) > 0.01


def random_states(data, width=6, blocks=2, seed=0):
    user, position = positions_of(data)
    drawn = np.random.default_rng(seed).normal(size=(len(user), blocks, width))
    return states_table(data, user, position, tuple(range(1, blocks + 1)), drawn.astype(np.float16))


def test_the_teacher_is_frozen_and_the_maps_learn(rings):
    model = DEEP.build(rings.data, 0)
    attach_parts(model, (PART,), rings.data, {TOLD: random_states(rings.data)}, 0)
    hook = model.hooks[0]
    before = hook.states.clone()
    batch = next(iter(Loader(rings.data, DEEP, 0).epoch(1)))
    model.loss(batch).backward()
    assert hook.states.grad is None and torch.equal(before, hook.states)
    assert all(m.weight.grad.abs().sum() > 0 for m in hook.maps)
    names = set(fold(model).state_dict())
    assert not [n for n in names if "maps" in n or n.endswith("hooks.0.states")]


def test_positions_without_states_are_not_taught(rings):
    told = random_states(rings.data)
    one = told.filter(pa.compute.equal(told["user_id"], rings.data.users.ids[0]))
    model = DEEP.build(rings.data, 0)
    attach_parts(model, (PART,), rings.data, {TOLD: one}, 0)
    batch = next(iter(Loader(rings.data, DEEP, 0).epoch(1)))
    states = model.user_state(batch).detach()
    rest = dataclasses.replace(batch, user=batch.user.clamp(min=2))
    assert float(model.hooks[0].extra_loss(model, rest, states)) == 0
    own = dataclasses.replace(batch, user=torch.ones_like(batch.user), begin=batch.begin * 0)
    found = float(model.hooks[0].extra_loss(model, own, states).detach())
    assert found > 0
    heavy = dataclasses.replace(own, weight=3 * own.weight)
    again = float(model.hooks[0].extra_loss(model, heavy, states).detach())
    assert again == pytest.approx(3 * found)
    with pytest.raises(ValueError, match="none of its 2 rows joins"):
        strange = one.slice(0, 2).set_column(0, "user_id", pa.array(["?", "?"]))
        teacher_states(strange, rings.data, 2, "told")
    with pytest.raises(ValueError, match="2 layers, the student has 3 blocks"):
        teacher_states(told, rings.data, 3, "told")


def test_heads_by_hand(rings):
    """Two trained positions, one head: cross-entropy over all items of what the head maps."""
    vectors = torch.cat([torch.zeros(1, 2), torch.eye(2)])
    hook = HeadsHook(vectors, (1,), 2, 0.5)
    with torch.no_grad():
        hook.heads[0].weight.copy_(2 * torch.eye(2))

    class Model:
        layer_states = (None, torch.tensor([[[1.0, 0.0], [0.0, 3.0]]]))

    batch = SequenceBatch(torch.tensor([1]), torch.tensor([[1, 2]]), torch.tensor([[1, 1]]))
    loss = hook.extra_loss(Model(), batch, torch.zeros(1))
    wanted = 0.5 * np.mean([np.log(1 + np.exp(-2)), np.log(1 + np.exp(6))])
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-5)
    heavy = dataclasses.replace(batch, weight=torch.tensor(3.0))
    loss = hook.extra_loss(Model(), heavy, torch.zeros(1))
    assert float(loss.detach()) == pytest.approx(3 * wanted, rel=1e-5)


def test_maps_in_and_out_fold_into_tables(rings):
    """The score is (D h) . z, written with the vectors themselves."""
    model = DEEP.build(rings.data, 0)
    parts = (ProjectedItems(source=ITEMS), DeepSupervision(source=ITEMS, blocks=2))
    attach_parts(model, parts, rings.data, {ITEMS: rings.items}, 0)
    model.eval()
    batch = scoring_batch(np.array([1, 2]), [np.array([3, 4]), np.array([6])], 20)
    hook = model.hooks[0]
    with torch.no_grad():
        state = model.user_state(batch)
        by_hand = hook.down(state) @ hook.vectors.T
        torch.testing.assert_close(model.score(state), by_hand)
        served = fold(model)
        after = served.score(served.user_state(batch))
    torch.testing.assert_close(after[:, 1:], by_hand[:, 1:], rtol=1e-4, atol=1e-5)
    assert not list(served.hooks)


def test_a_student_trains_and_controls_change_it(rings):
    train = Train(DEEP, LOG, fuse=(ProjectedItems(source=ITEMS),), aux=(PART,))
    inputs = {ITEMS: rings.items, TOLD: random_states(rings.data)}
    real = fit(train, rings.data, inputs, seed=0).export()[1]
    for arm in ("shuffled", "gaussian"):
        given = control_inputs(inputs, arm, seed=1, log=rings.data)
        other = fit(train, rings.data, given, seed=0).export()[1]
        assert any(not np.array_equal(real[n], other[n]) for n in real)


def test_weights_of_zero_leave_the_vectors_alone(rings):
    """SLMRec without its two weights trains what its item vectors alone train."""
    slmrec = discover()["slmrec"]
    node = slmrec(backbone=DEEP, blocks=2, weight=0, deep=0)
    states, heads = node.aux
    inputs = {node.fuse[0].source: rings.items, states.teacher: random_states(rings.data)}

    def trained(aux):
        train = Train(DEEP, LOG, fuse=node.fuse, aux=aux)
        return fit(train, rings.data, inputs, seed=0).export()[1]

    alone, off = trained(()), trained((states, heads))
    assert set(alone) == set(off) and all(np.array_equal(alone[n], off[n]) for n in alone)
    on = trained(slmrec(backbone=DEEP, blocks=2).aux)
    assert any(not np.array_equal(alone[n], on[n]) for n in alone)
    assert slmrec().aux[0] == LayerDistillation(teacher=slmrec().aux[0].teacher)  # as published


def test_controls_of_states(rings):
    told = random_states(rings.data)
    rows = {(r["user_id"], r["position"]): r["vec"] for r in told.to_pylist() if r["layer"] == 1}
    for arm in ("shuffled", "permuted"):
        dealt = control_inputs({TOLD: told}, arm, seed=1)[TOLD]
        new = {(r["user_id"], r["position"]): r["vec"] for r in dealt.to_pylist()
               if r["layer"] == 1}  # fmt: skip
        assert set(new) == set(rows) and sorted(new.values()) == sorted(rows.values())
        assert not [k for k in rows if rows[k] == new[k]], "none keeps its own states"
    drawn = control_inputs({TOLD: told}, "gaussian", seed=1)[TOLD]
    one = np.array([r["vec"] for r in drawn.to_pylist() if r["layer"] == 1])
    assert drawn.schema == told.schema and abs(one.mean()) < 0.2 and 0.8 < one.std() < 1.2
