from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from llmers_pipelines.data.training import TEST, TRAIN, VALID, IdMap, TrainingData
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.enhance.side_features import SideFeatures
from llmers_pipelines.enhance.side_features_net import Means, one_negative, pair_bpr, weighted
from llmers_pipelines.models.batches import PairBatch
from llmers_pipelines.models.bprmf import BPRMF
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.histories import history_before
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.models.ranking_net import scoring_batch
from llmers_pipelines.models.served import fold
from llmers_pipelines.plan import PlanError, Table
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.loop import load_loader

pytestmark = pytest.mark.proof("llmrec", "equations")

TEXT, PROFILE, ATTRIBUTE = Table("text"), Table("profile"), Table("attribute")
FIT = Fit(lr=3e-3, batch=16, epochs=2)
BACKBONES = [LightGCN(dim=8, layers=2, fit=FIT), BPRMF(dim=8, loss="bpr", fit=FIT)]
backbones = pytest.mark.parametrize("backbone", BACKBONES, ids=["lightgcn", "bprmf"])
OFF = {"profile_attribute": 0.0, "modality": 0.0, "l2": 0.0, "restore": 0.0}
STILL = {"c_text": 0.0, "c_profile": 0.0, "c_attribute": 0.0}


@pytest.fixture(scope="module")
def data():
    return planted_rings(n_users=30, n_items=20).data


def inputs(data, width=6):
    rng = np.random.default_rng(0)

    def table(entity, ids):
        vectors = rng.standard_normal((len(ids), width)).astype(np.float32)
        return VectorTable(entity, ids.ids, vectors, np.arange(len(ids)) % 5 > 0)

    return {TEXT: table("item", data.items), PROFILE: table("user", data.users),
            ATTRIBUTE: table("item", data.items)}  # fmt: skip


def attached(backbone, data, **settings):
    model = backbone.build(data, 0)
    part = SideFeatures(TEXT, PROFILE, (ATTRIBUTE,), **settings)
    attach_parts(model, (part,), data, inputs(data), 0)
    return model


def batch_of(backbone, data):
    return next(load_loader("pair")(data, backbone, 0).epoch(1))


def tiny():
    """Users 1: items 1, 2; user 2: item 2 (item 3 is held out); item 3 has no training row."""
    ids = IdMap(("u1", "u2", "u3")), IdMap(("a", "b", "c"))
    return TrainingData(
        "sequential", *ids, np.array([1, 1, 2, 2]), np.array([1, 2, 2, 3]), np.arange(4),
        np.array([TRAIN, TRAIN, TRAIN, VALID], np.int8),
    )  # fmt: skip


def test_golden_case_of_propagation():
    means = Means(tiny())
    items = torch.tensor([[0.0], [2.0], [4.0], [100.0]])
    users, again = means.views("item", items)
    assert users[:, 0].tolist() == [0, 3, 4, 0]  # (2 + 4) / 2; 4; nobody has no item
    assert again[:, 0].tolist() == [0, 3, 3.5, 0]  # a: u1; b: u1 and u2
    people = torch.tensor([[0.0], [1.0], [3.0], [50.0]])
    users, items = means.views("user", people)
    assert items[:, 0].tolist() == [0, 1, 2, 0]
    assert users[:, 0].tolist() == [0, 1.5, 2, 0]


def test_the_gradient_of_propagation_is_that_of_the_dense_product(data):
    means = Means(data)
    graph = torch.zeros(means.shape)
    train = data.split == TRAIN
    graph[data.user[train], data.item[train]] = 1
    by_user = graph / graph.sum(1, keepdim=True).clamp(min=1)
    by_item = graph.T / graph.T.sum(1, keepdim=True).clamp(min=1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(means.shape[1], 3, generator=generator, requires_grad=True)
    weight = torch.randn(means.shape[1], 3, generator=generator)
    users, items = means.views("item", x)
    torch.testing.assert_close(users, by_user @ x)
    torch.testing.assert_close(items, by_item @ by_user @ x)
    found = torch.autograd.grad((items * weight).sum(), x)[0]
    dense = torch.autograd.grad((by_item @ by_user @ x * weight).sum(), x)[0]
    torch.testing.assert_close(found, dense)


def test_views_are_added_at_unit_length():
    views = [torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[0.0, 2.0], [1.0, 0.0]])]
    assert torch.allclose(weighted([0.5, 2.0], views), torch.tensor([[0.3, 2.4], [2.0, 0.0]]))


@backbones
def test_the_encoder_by_hand(backbone, data):
    model = attached(backbone, data, c_text=0.3, c_profile=0.7, c_attribute=0.2, **OFF)
    (hook,) = model.hooks
    bare = backbone.build(data, 0)
    users, items = bare._final()
    graph = torch.zeros(data.n_users + 1, data.n_items + 1)
    train = data.split == TRAIN
    graph[data.user[train], data.item[train]] = 1
    by_user = graph / graph.sum(1, keepdim=True).clamp(min=1)
    by_item = graph.T / graph.T.sum(1, keepdim=True).clamp(min=1)
    for number, (kind, c) in enumerate(zip("ipi", (0.3, 0.7, 0.2), strict=True)):
        g = hook.vectors(number) @ hook.project[number].weight.T
        x_u, x_i = ((by_user @ g, by_item @ by_user @ g) if kind == "i"
                    else (by_user @ by_item @ g, by_item @ g))  # fmt: skip
        users = users + c * F.normalize(x_u, dim=-1)
        items = items + c * F.normalize(x_i, dim=-1)
    batch = batch_of(backbone, data)
    torch.testing.assert_close(model.user_state(batch), users[batch.user], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.item_output(), items, atol=1e-5, rtol=1e-5)


@backbones
@pytest.mark.parametrize("split", [VALID, TEST])
def test_a_user_is_scored_from_the_history_and_served_alike(backbone, data, split):
    model = attached(backbone, data)
    history = history_before(data, split)
    users = np.arange(1, data.n_users + 1)
    batch = scoring_batch(users, history.lists(users), None)
    with torch.no_grad():
        scored = model.user_state(batch)
        trained = model.user_state(PairBatch(batch.user, batch.user))
        served = fold(model)
        torch.testing.assert_close(served.user_state(batch), scored, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(served.item_output(), model.item_output())
    same = torch.allclose(scored, trained, atol=1e-5)
    assert same == (split == VALID)  # at validation the history is the training history
    assert {k for k, _ in served.hooks[0].named_buffers()} == {"tables"}  # no text vectors
    assert not list(served.hooks[0].parameters())


@backbones
def test_switched_off_training_is_that_of_the_backbone(backbone, data):
    def weights(model):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for batch in itertools.islice(load_loader("pair")(data, backbone, 0).epoch(1), 20):
            optimizer.zero_grad()
            model.loss(batch).backward()
            optimizer.step()
        return model.item_table.weight.detach()

    bare = weights(backbone.build(data, 0))
    assert torch.equal(bare, weights(attached(backbone, data, **OFF, **STILL)))
    # Losses of the features alone draw from their own stream and do not touch the tables.
    assert torch.equal(bare, weights(attached(backbone, data, **STILL)))
    assert not torch.allclose(bare, weights(attached(backbone, data)), atol=1e-4)


def term(data, **on):
    """The extra loss of one term alone, and what it is made from."""
    model = attached(BACKBONES[0], data, **{**OFF, **on})
    (hook,) = model.hooks
    batch = batch_of(BACKBONES[0], data)
    states = model.user_state(batch)
    text, profile, attribute = hook.made(model)
    return (
        hook.extra_loss(model, batch, states),
        batch,
        one_negative(batch),
        text,
        profile,
        attribute,
    )


def test_profile_against_attribute(data):
    loss, batch, worse, _, profile, attribute = term(data, profile_attribute=2.0, drop=0.25)
    p, a = profile[0][batch.user], attribute[0]
    margins = (p * a[batch.positive]).sum(1) - (p * a[worse]).sum(1)
    losses = -F.logsigmoid(margins)
    stay = losses.sort().values[: len(losses) - len(losses) // 4]
    torch.testing.assert_close(loss, 2 * stay.mean())


def test_modality(data):
    loss, batch, worse, text, _, _ = term(data, modality=3.0)
    u, i = text[1][batch.user], text[2]
    margins = (u * i[batch.positive]).sum(1) - (u * i[worse]).sum(1)
    torch.testing.assert_close(loss, -3 * F.logsigmoid(margins).mean())


def test_l2(data):
    loss, batch, _, text, profile, attribute = term(data, l2=0.1)
    squares = [text[0][batch.positive], profile[0][batch.user], attribute[0][batch.positive]]
    expected = 0.05 * sum((x**2).sum() for x in squares) / len(batch.user)
    torch.testing.assert_close(loss, expected)


def test_masked_restoration_sees_the_mean_in_place_of_what_is_masked(data):
    model = attached(BACKBONES[0], data, **{**OFF, "restore": 2.0}, mask=0.3, gamma=3.0)
    (hook,) = model.hooks
    before = hook.stream._cpu.clone()
    batch = batch_of(BACKBONES[0], data)
    with hook.stream():
        found = hook.extra_loss(model, batch, None)
    hook.stream._cpu = before
    expected = 0.0
    with hook.stream():
        for number, side in enumerate(("item", "user", "item")):
            vectors, real = hook.vectors(number), getattr(hook, f"real{number}")
            chosen = real & (torch.rand(len(real)) < 0.3)
            assert 0 < int(chosen.sum()) < int(real.sum())
            masked = vectors.clone()
            masked[chosen] = vectors[real].mean(0)
            users, items = hook.means.views(side, hook.project[number](masked))
            own = items if side == "item" else users
            restored = hook.decode[number](own[chosen])
            distance = 1 - F.cosine_similarity(restored, vectors[chosen])
            expected = expected + (distance**3).mean()
    torch.testing.assert_close(found, 2 * expected)
    assert found.requires_grad


def test_pair_bpr_and_the_negative_of_a_row():
    user, better, worse = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0]]), torch.ones(1, 2)
    assert float(pair_bpr(user, better, worse)) == pytest.approx(np.log(1 + np.exp(3.0 - 3.0)))
    own = PairBatch(torch.tensor([1, 2]), torch.tensor([1, 2]), torch.tensor([[7], [8]]))
    assert one_negative(own).tolist() == [7, 8]
    shared = PairBatch(torch.arange(5), torch.arange(5), torch.tensor([[7, 8]]))
    assert one_negative(shared).tolist() == [7, 8, 7, 8, 7]


def test_what_is_missing_is_named(data):
    with pytest.raises(PlanError, match="at least one of"):
        SideFeatures()
    for settings in ({"mask": 1.0}, {"drop": -0.1}, {"gamma": 0.5}, {"keep": "all"}):
        with pytest.raises(PlanError):
            SideFeatures(TEXT, **settings)
    model = BACKBONES[0].build(data, 0)
    with pytest.raises(ValueError, match="vectors of users, expected vectors of items"):
        attach_parts(model, (SideFeatures(PROFILE),), data, inputs(data), 0)
