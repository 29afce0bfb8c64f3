from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from llmers_pipelines.data.training import TRAIN
from llmers_pipelines.models.batches import PairBatch
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.hgcf import HGCF
from llmers_pipelines.models.hgcf_net import hierarchy, nearest
from llmers_pipelines.models.hyperboloid_net import distance2, exp0, lifted, log0
from llmers_pipelines.models.ranking_net import rank_targets, scoring_batch
from llmers_pipelines.models.served import fold, load_served
from llmers_pipelines.plan import PlanError, Table, Train
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.loop import fit, load_loader

pytestmark = pytest.mark.proof("hgcf", "equations")

SMALL = HGCF(dim=4, layers=2, negatives=3, fit=Fit(lr=0.5, batch=32, epochs=12, min_epochs=12))
LOG = Table("splits", task="collaborative")


@pytest.fixture(scope="module")
def data():
    return planted_rings(n_users=30, n_items=20).data


@pytest.fixture
def model(data):
    made = SMALL.build(data, 0)
    with torch.no_grad():  # away from the origin, where all is flat
        for table in made.on_manifold():
            table[1:] *= 8
    return made


def test_the_encoder_is_that_of_a_loop_over_nodes(data, model):
    """t^k = mean over a node and its neighbours; the point is exp0(t^1 + .. + t^K)."""
    rows = data.split == TRAIN
    pairs = {(int(u), int(i)) for u, i in zip(data.user[rows], data.item[rows], strict=True)}
    users, items = (log0(t).detach() for t in model.on_manifold())
    total_user, total_item = torch.zeros_like(users), torch.zeros_like(items)
    for _ in range(SMALL.layers):
        new_user, new_item = users.clone(), items.clone()
        for u in range(1, data.n_users + 1):
            near = [items[i] for v, i in pairs if v == u]
            new_user[u] = (users[u] + sum(near)) / (1 + len(near))
        for i in range(1, data.n_items + 1):
            near = [users[u] for u, j in pairs if j == i]
            new_item[i] = (items[i] + sum(near)) / (1 + len(near))
        users, items = new_user, new_item
        total_user, total_item = total_user + users, total_item + items
    for found, expected in zip(model.points(), (total_user, total_item), strict=True):
        torch.testing.assert_close(found[1:].detach(), exp0(expected)[1:], atol=1e-6, rtol=1e-5)


def test_scores_order_as_the_negative_squared_distance(data, model):
    users, items = (p.detach().double() for p in model.points())
    history = [data.item[(data.user == u) & (data.split == TRAIN)] for u in (1, 2, 3)]
    state = model.user_state(scoring_batch(np.array([1, 2, 3]), history, None))
    scores = model.score(state).detach()[:, 1:]
    for row, user in enumerate((1, 2, 3)):
        apart = distance2(users[user], items[1:])
        assert torch.equal(scores[row].argsort(descending=True), apart.argsort())
        torch.testing.assert_close((-scores[row].double()).acosh().square(), apart, atol=1e-4,
                                   rtol=1e-4)  # fmt: skip
    product = model.as_product(state)
    torch.testing.assert_close((product.state @ product.items.T)[:, 1:], scores)


def test_a_training_history_gives_the_trained_point_and_a_stranger_needs_no_training(data, model):
    history = [data.item[(data.user == 4) & (data.split == TRAIN)]]
    known = model.user_state(scoring_batch(np.array([4]), history, None))
    trained = model.user_state(PairBatch(torch.tensor([4]), torch.tensor([1])))
    torch.testing.assert_close(known, trained, atol=1e-6, rtol=1e-5)
    nobody = model.user_state(scoring_batch(np.array([0]), [history[0][:0]], None))
    assert nobody.tolist() == [[-1.0, 0.0, 0.0, 0.0, 0.0]]  # the origin
    stranger = model.user_state(scoring_batch(np.array([0]), history, None))
    assert not torch.allclose(stranger, nobody)


def test_golden_case_of_the_loss(data):
    """Two items on a line through the user, at distances .5 and 1 from it: one pair, one negative.

    d^2 = .25 and 1; u at the origin: w = sigmoid(0) = .5. Margin 2: .25 - 1 + 1 = .25.
    """
    model = dataclasses.replace(SMALL, margin=2.0).build(data, 0)
    items = torch.zeros(data.n_items + 1, 4)
    items[1] = exp0(torch.tensor([0.5, 0.0, 0.0, 0.0]))
    items[2] = exp0(torch.tensor([0.0, 1.0, 0.0, 0.0]))
    users = torch.zeros(data.n_users + 1, 4)
    model._vectors = users, items
    batch = PairBatch(torch.tensor([1]), torch.tensor([1]), torch.tensor([[2, 2, 2]]))
    states = model.user_state(batch)
    assert model._pair_loss(batch, states).item() == pytest.approx(0.25, abs=1e-5)
    model.margin = 1.0  # .25 - 1 + .5 < 0: no loss
    assert model._pair_loss(batch, states).item() == 0.0
    model.margin, model.adaptive = 1.0, False
    assert model._pair_loss(batch, states).item() == pytest.approx(0.25, abs=1e-5)


def test_golden_case_of_the_hierarchy_ratio():
    """u0 = i0 = 2 at one point: <u, i>_L = -1, -(1 + 1 - 4) / 4 = .5; opposite: 1 - 2 * 4 = -7."""
    two = torch.tensor([2.0])
    assert hierarchy(torch.tensor([-1.0]), two, two).item() == pytest.approx(0.5)
    assert hierarchy(torch.tensor([-7.0]), two, two).item() == pytest.approx(-1.0)


@pytest.mark.parametrize("items", [40, 400])
def test_the_nearest_negative_is_taken(items):
    """Both ways of finding it, a product with all items and rows of some, agree with distances."""
    torch.manual_seed(0)
    points = torch.randn(items, 3, dtype=torch.float64)
    negative = torch.randint(1, items, (9, 3))
    positive = points[torch.arange(9)]
    apart = distance2(positive[:, None], points[negative])
    expected = negative.gather(1, apart.argmin(1, keepdim=True))[:, 0]
    assert torch.equal(nearest(lifted(points), lifted(positive), negative), expected)


def test_negatives_are_as_many_as_asked_and_never_met(data):
    rows = data.split == TRAIN
    pairs = set(zip(data.user[rows].tolist(), data.item[rows].tolist(), strict=True))
    loader = load_loader("pair")(data, SMALL, 0)
    for batch in loader.epoch(1):
        assert batch.negative.shape == (len(batch.user), 3)
        drawn = [(u, i) for u, row in zip(batch.user.tolist(), batch.negative.tolist(), strict=True)
                 for i in row]  # fmt: skip
        assert not pairs & set(drawn)


def test_it_learns_and_what_is_served_ranks_alike(data):
    trained = fit(Train(SMALL, LOG), data, {}, seed=0)
    start = fit(
        Train(dataclasses.replace(SMALL, fit=Fit(lr=1e-8, epochs=1)), LOG), data, {}, seed=0
    )
    assert trained.best_valid > 1.1 * start.best_valid
    assert trained.epochs[-1]["train_loss"] < 0.5 * trained.epochs[0]["train_loss"]
    ranks = rank_targets(trained.model, data, 2).rank
    assert ranks.mean() < 0.8 * data.n_items / 2
    again = load_served(*trained.export())
    histories = [data.item[:4], data.item[4:6]]
    np.testing.assert_allclose(again.scores([1, 0], histories)[:, 1:],
                               trained.scores([1, 0], histories)[:, 1:], rtol=1e-6)  # fmt: skip


def test_folding_changes_no_score(data, model):
    histories = [data.item[:5], data.item[5:7], data.item[:0]]
    batch = scoring_batch(np.array([3, 0, 0]), histories, None)
    model.eval()
    with torch.no_grad():
        before = model.score(model.user_state(batch))
        served = fold(model)
        torch.testing.assert_close(served.score(served.user_state(batch)), before)


@pytest.mark.parametrize("bad", [{"layers": 0}, {"negatives": 0}, {"margin": 0.0},
                                 {"momentum": 1.0}, {"parts_lr": 0.0}])  # fmt: skip
def test_settings_that_mean_nothing_are_refused(bad):
    with pytest.raises(PlanError, match="HGCF"):
        HGCF(**bad)
