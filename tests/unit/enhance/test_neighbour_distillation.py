from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pyarrow as pa
import pytest
import torch

from llmers_pipelines.enhance.neighbour_distillation import NeighbourDistillation
from llmers_pipelines.enhance.neighbour_distillation_net import (
    distillation_loss,
    neighbour_lists,
)
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.plan import PlanError, Table, Train
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.loop import fit, load_loader

pytestmark = pytest.mark.proof("llm_esr", "equations")

SIMILAR, LOG = Table("users"), Table("splits", task="sequential")
FIT = Fit(lr=3e-3, batch=16, epochs=2)
SASREC = SASRec(dim=8, inner=16, max_len=8, dropout=0.3, fit=FIT)
LIGHTGCN = LightGCN(dim=8, layers=2, fit=FIT)
backbones = pytest.mark.parametrize("backbone", [SASREC, LIGHTGCN], ids=["sasrec", "lightgcn"])
refreshes = pytest.mark.parametrize("refresh", ["epoch", "step"])


@pytest.fixture(scope="module")
def data():
    return planted_rings(n_users=30, n_items=20).data


def similar(n_users=30, k=3):
    user = np.repeat(np.arange(n_users), k)
    rank = np.tile(np.arange(k), n_users)
    other = (user + rank + 1) % n_users
    return pa.table({
        "user_id": [f"u{u + 1}" for u in user], "rank": pa.array(rank + 1, pa.int32()),
        "other_id": [f"u{o + 1}" for o in other],
    })  # fmt: skip


def attached(backbone, data, **settings):
    model = backbone.build(data, 0)
    part = NeighbourDistillation(SIMILAR, **{"n": 3, **settings})
    attach_parts(model, (part,), data, {SIMILAR: similar()}, 0)
    return model


def test_golden_case():
    neighbours = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    real = torch.ones(1, 2, dtype=torch.bool)
    assert float(distillation_loss(torch.zeros(1, 2), neighbours, real)) == 0.25


def test_missing_neighbours_do_not_count():
    states, neighbours = torch.zeros(3, 2), torch.ones(3, 2, 2)
    real = torch.tensor([[True, False], [False, False], [True, True]])
    neighbours[0, 1] = 100.0
    assert float(distillation_loss(states, neighbours, real)) == 1.0
    assert float(distillation_loss(states, neighbours, real & False)) == 0.0


def test_lists_are_joined_by_id_ordered_by_rank_and_without_the_user(data):
    table = pa.table({
        "user_id": ["u2", "u1", "u1", "u1", "gone", "u1"],
        "rank": [1, 3, 1, 2, 1, 4],
        "other_id": ["u1", "u5", "u3", "u1", "u1", "gone"],
    })  # fmt: skip
    lists = neighbour_lists(table, data.users, 2, "x")
    assert lists[1].tolist() == [3, 5]
    assert lists[2].tolist() == [1, 0]
    assert not lists[0].any() and not lists[3:].any()
    shuffled = table.take([5, 2, 0, 4, 3, 1])
    assert np.array_equal(neighbour_lists(shuffled, data.users, 2, "x"), lists)


@backbones
@refreshes
def test_the_loss_pulls_users_towards_the_mean_of_their_neighbours(backbone, refresh, data):
    backbone = dataclasses.replace(backbone, **({"dropout": 0.0} if backbone is SASREC else {}))
    model = attached(backbone, data, refresh=refresh, weight=0.7)
    hook = model.hooks[0]
    if refresh == "epoch":
        hook.begin_epoch(model, 1)
    batch = next(iter(load_loader(backbone.loader)(data, backbone, 0).epoch(1)))
    states = model.user_state(batch)
    found = hook.extra_loss(model, batch, states)
    from llmers_pipelines.data.training import VALID
    from llmers_pipelines.models.histories import history_before
    from llmers_pipelines.models.ranking_net import scoring_batch

    users = np.arange(31)
    history = history_before(data, VALID).lists(users)
    with torch.no_grad():
        vectors = model.user_state(scoring_batch(users, history, getattr(model, "max_len", None)))
    mean = vectors[hook.lists[batch.user]].mean(1)
    own = states[:, -1] if states.dim() == 3 else states
    expected = 0.7 * (own - mean).square().mean()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    if states.dim() == 3:  # one term per window: how many targets the windows have says nothing
        heavy = dataclasses.replace(batch, weight=torch.tensor(3.0))
        torch.testing.assert_close(hook.extra_loss(model, heavy, states), found)


@refreshes
def test_no_gradient_reaches_the_neighbours(refresh, data):
    backbone = dataclasses.replace(LIGHTGCN, layers=0)  # then users share no weights
    model = attached(backbone, data, refresh=refresh)
    hook = model.hooks[0]
    hook.begin_epoch(model, 1)
    from llmers_pipelines.models.batches import PairBatch

    batch = PairBatch(torch.tensor([1]), torch.tensor([1]))
    hook.extra_loss(model, batch, model.user_state(batch)).backward()
    reached = model.user_table.weight.grad.abs().sum(1).nonzero()[:, 0].tolist()
    assert reached == [1]  # not 2, 3, 4


@backbones
@refreshes
def test_weight_zero_is_the_backbone_and_another_weight_is_not(backbone, refresh, data):
    def weights(*aux):
        train = Train(backbone, LOG, aux=aux)
        return fit(train, data, {SIMILAR: similar()}, seed=0).export()[1]

    base = weights()
    inert = weights(NeighbourDistillation(SIMILAR, weight=0.0, refresh=refresh))
    active = weights(NeighbourDistillation(SIMILAR, weight=5.0, refresh=refresh))
    assert all(np.array_equal(base[k], inert[k]) for k in base)
    assert any(not np.allclose(base[k], active[k], atol=1e-5) for k in base)


def test_refreshing_does_not_disturb_the_backbones_random_stream(data):
    """A tiny weight leaves the weights near the base: the dropout draws are the same."""

    def after(*aux):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = SASREC.build(data, 1)
            attach_parts(model, aux, data, {SIMILAR: similar()}, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            loader = load_loader("sequence")(data, SASREC, 1)
            batches = itertools.chain.from_iterable(loader.epoch(n) for n in itertools.count(1))
            for batch in itertools.islice(batches, 20):
                optimizer.zero_grad()
                model.loss(batch).backward()
                optimizer.step()
        return model.item_table.weight.detach()

    tiny = NeighbourDistillation(SIMILAR, weight=1e-9, refresh="step")
    torch.testing.assert_close(after(tiny), after(), atol=1e-6, rtol=0)


def test_vectors_are_refreshed_each_epoch_and_nothing_is_served(data):
    model = attached(SASREC, data)
    hook = model.hooks[0]
    batch = next(iter(load_loader("sequence")(data, SASREC, 0).epoch(1)))
    with pytest.raises(RuntimeError, match="begin_epoch must run before the first step"):
        hook.extra_loss(model, batch, torch.zeros(len(batch.user), 8))
    hook.begin_epoch(model, 1)
    first = hook._vectors.clone()
    with torch.no_grad():
        model.item_table.weight[1:] += torch.rand(20, 8)
    hook.begin_epoch(model, 2)
    assert not torch.allclose(hook._vectors, first)
    assert model.training
    assert hook.fold(model) is None
    assert not [k for k in model.state_dict() if k.startswith("hooks")]


def test_mistakes_are_named(data):
    with pytest.raises(PlanError, match="needs `similar`"):
        NeighbourDistillation()
    with pytest.raises(PlanError, match="refresh is 'never'"):
        NeighbourDistillation(SIMILAR, refresh="never")
    with pytest.raises(ValueError, match=r"missing \['other_id', 'rank'\]"):
        neighbour_lists(pa.table({"user_id": ["u1"]}), data.users, 2, "x")
    foreign = pa.table({"user_id": ["a"], "rank": [1], "other_id": ["b"]})
    with pytest.raises(ValueError, match="none of its 1 rows joins two users"):
        neighbour_lists(foreign, data.users, 2, "x")
