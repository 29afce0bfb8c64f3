"""What is special to the rating regressor."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from llmers_pipelines.data.training import TEST, TRAIN, VALID, IdMap, TrainingData
from llmers_pipelines.models.batches import CtrBatch
from llmers_pipelines.models.biased_mf import BiasedMF
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.served import load_served
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.testing.contract import contract_data
from llmers_pipelines.train.loop import fit
from llmers_pipelines.train.rating_loader import Loader
from llmers_pipelines.train.ratings import mae, rmse

pytestmark = pytest.mark.proof("biased_mf", "equations")

LOG = Table("splits", task="rating")
FIT = Fit(lr=1e-2, batch=64, epochs=40, min_epochs=10, patience=6, metric="rmse")
SMALL = BiasedMF(dim=4, fit=FIT)


@pytest.fixture(scope="module")
def data():
    return contract_data("rating")


def lively(backbone, data):
    net = backbone.build(data, 0).eval()
    draws = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(std=0.3, generator=draws)
        for part in (net.users, net.items, net.user_bias, net.item_bias):
            part.table.weight[0] = 0
    return net


def rows(users, items):
    return CtrBatch(
        user=torch.tensor(users), item=torch.tensor(items),
        history=torch.zeros(len(users), 1, dtype=torch.long), history_rating=None, label=None,
        rows=None,
    )  # fmt: skip


@pytest.mark.parametrize("features", [False, True])
def test_a_rating_is_mean_biases_and_product(data, features):
    net = lively(dataclasses.replace(SMALL, features=features), data)
    u, i = 3, 5
    p, q = net.users.table.weight[u], net.items.table.weight[i]
    b = net.user_bias.table.weight[u, 0] + net.item_bias.table.weight[i, 0]
    if features:
        group = data.user_fields["group"].codes[u]
        genre = data.item_fields["genre"].codes[i]
        p, q = p + net.users.values.weight[group], q + net.items.values.weight[genre]
        b = b + net.user_bias.values.weight[group, 0] + net.item_bias.values.weight[genre, 0]
    mean = data.rating[data.split == TRAIN].mean() + net.mean
    torch.testing.assert_close(net.raw(rows([u], [i]))[0], mean + b + p @ q)


def test_an_unknown_user_has_the_items_bias_alone(data):
    net = lively(dataclasses.replace(SMALL, features=False), data)
    mean = float(data.rating[data.split == TRAIN].mean()) + net.mean.item()
    found = net.raw(rows([0, 0], [5, 0])).tolist()
    assert found == pytest.approx([mean + net.item_bias.table.weight[5, 0].item(), mean])


def test_predictions_stay_within_the_ratings_and_the_loss_is_the_squared_error(data):
    net = lively(SMALL, data)
    b = next(Loader(data, SMALL, 0).epoch(1))
    with torch.no_grad():
        net.mean.fill_(3.0)
    assert net.raw(b).max() > 5
    assert net.ratings(b).max() == 5
    torch.testing.assert_close(net.loss(b), (net.raw(b) - b.label).square().mean())
    known = torch.from_numpy(data.rating[b.rows.numpy()])
    assert torch.equal(b.label, known)


def test_the_first_predictions_are_the_mean_of_training(data):
    net = SMALL.build(data, 0)
    b = next(Loader(data, SMALL, 0).epoch(1))
    mean = torch.full((len(b.user),), float(data.rating[data.split == TRAIN].mean()))
    torch.testing.assert_close(net.raw(b).detach(), mean, atol=0.1, rtol=0)


def test_the_mean_and_the_range_are_of_training_rows(data):
    rating = data.rating.copy()
    rating[data.split != TRAIN] = 9
    wider = dataclasses.replace(data, rating=rating)
    b = rows([3], [5])
    for net in (SMALL.build(d, 0) for d in (data, wider)):
        mean = float(data.rating[data.split == TRAIN].mean())
        assert float(net.raw(b)[0].detach()) == pytest.approx(mean, abs=0.1)
        with torch.no_grad():
            net.mean.fill_(100.0)
        assert float(net.ratings(b)[0].detach()) == data.rating[data.split == TRAIN].max()


def test_an_export_predicts_the_same(data):
    trained = fit(Train(SMALL, LOG), data, {}, seed=0)
    config, arrays = trained.export()
    served = load_served(json.loads(json.dumps(config)), arrays)
    at = np.arange(40)
    none = [np.zeros(0, np.int64)] * 40
    p = served.predict(data.user[at], data.item[at], none)
    np.testing.assert_allclose(p, trained.predict(at), rtol=1e-6)
    assert p.min() >= 2
    assert p.max() <= 5


def test_it_finds_planted_biases_and_tastes():
    rng = np.random.default_rng(0)
    users, items = 80, 60
    b_u, b_i = rng.normal(0, 0.5, users + 1), rng.normal(0, 0.5, items + 1)
    p, q = rng.normal(0, 0.7, (users + 1, 2)), rng.normal(0, 0.7, (items + 1, 2))
    user = np.repeat(np.arange(1, users + 1), 40)
    item = np.concatenate([rng.permutation(items)[:40] + 1 for _ in range(users)])
    rating = 3 + b_u[user] + b_i[item] + (p[user] * q[item]).sum(1)
    rating = (rating + rng.normal(0, 0.1, len(user))).astype(np.float32)
    data = TrainingData(
        "rating", IdMap(tuple(f"u{n}" for n in range(users))),
        IdMap(tuple(f"i{n}" for n in range(items))), user, item,
        np.tile(np.arange(40), users), rng.choice([TRAIN] * 8 + [VALID, TEST], len(user)),
        rating=rating,
    )  # fmt: skip
    test = np.flatnonzero(data.split == TEST)
    trained = fit(Train(SMALL, LOG), data, {}, seed=0)
    shuffled = dataclasses.replace(data, rating=rng.permutation(rating))
    chance = fit(Train(SMALL, LOG), shuffled, {}, seed=0)
    alone = np.full(len(test), rating[data.split == TRAIN].mean())
    assert rmse(rating[test], trained.predict(test)) < 0.4 * rmse(rating[test], alone)
    assert rmse(shuffled.rating[test], chance.predict(test)) > 0.9 * rating.std()
    best = max(e["valid"] for e in trained.epochs if e["valid"] is not None)
    valid = np.flatnonzero(data.split == VALID)
    assert best == pytest.approx(-rmse(rating[valid], trained.predict(valid)), rel=1e-5)


def test_a_log_without_ratings_or_another_metric_is_refused(data):
    with pytest.raises(ValueError, match="has none"):
        SMALL.build(dataclasses.replace(data, rating=None), 0)
    with pytest.raises(ValueError, match="no rating in every row"):
        Loader(dataclasses.replace(data, rating=None), SMALL, 0)
    holes = np.where(np.arange(len(data.user)) == 3, np.nan, data.rating)
    with pytest.raises(ValueError, match="no number"):
        Loader(dataclasses.replace(data, rating=holes), SMALL, 0)
    wrong = dataclasses.replace(SMALL, fit=dataclasses.replace(FIT, metric="auc"))
    with pytest.raises(ValueError, match=r"'auc' does not suit a rating model.*'mae', 'rmse'"):
        Loader(data, wrong, 0)


def test_errors_by_hand():
    rating, p = np.array([1.0, 3.0, 5.0]), np.array([2.0, 3.0, 3.0])
    assert rmse(rating, p) == pytest.approx((5 / 3) ** 0.5)
    assert mae(rating, p) == pytest.approx(1.0)
