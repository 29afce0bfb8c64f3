"""Ids that training never met are unknown ones: no noise of their draw reaches a score."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil

import numpy as np
import pytest
import torch
from ranking_cases import BACKBONES, build, facts_of, log_of
from test_click_shared import KINDS, SCENARIOS

from llmers_pipelines import models
from llmers_pipelines.api import FromVectors, Table, Train
from llmers_pipelines.data.training import HISTORY, TEST, TRAIN, VALID, Field
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.models import ctr_net, factor_net, hgcf_net, met
from llmers_pipelines.models.als import ALS
from llmers_pipelines.models.biased_mf import BiasedMF
from llmers_pipelines.models.bprmf import BPRMF
from llmers_pipelines.models.click_settings import ClickSettings
from llmers_pipelines.models.ease import EASE
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.hgcf import HGCF
from llmers_pipelines.models.itemknn import ItemKNN
from llmers_pipelines.models.knowledge_settings import GraphOfFacts
from llmers_pipelines.models.naml import NAML
from llmers_pipelines.models.popularity import Popularity
from llmers_pipelines.models.seams import Backbone
from llmers_pipelines.plan import Node
from llmers_pipelines.testing.contract import contract_data
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.carry_net import carry
from llmers_pipelines.train.loop import fit

FIT = Fit(lr=1e-2, batch=16, epochs=1, min_epochs=1, weight_decay=0.1)
CLICKS = [*KINDS, *SCENARIOS, BiasedMF(dim=4, fit=dataclasses.replace(FIT, metric="rmse"))]
RANKING = {
    **BACKBONES,
    "hgcf": HGCF(dim=8, fit=FIT),
    "bprmf-in_batch": BPRMF(dim=16, loss="in_batch", fit=FIT),
    "caser-in_batch": dataclasses.replace(BACKBONES["caser"], loss="in_batch"),
    "two_tower-in_batch": dataclasses.replace(BACKBONES["two_tower"], loss="in_batch"),
    "als": ALS(dim=8), "ease": EASE(), "itemknn": ItemKNN(), "popularity": Popularity(),
}  # fmt: skip
# These score users by vectors of the items' texts, words or neighbours; no id has a row.
WITHOUT_IDS = {"TextKNN", "KNNBlend", "NRMS"}
COLD_USERS, COLD_ITEMS = (29, 30), (19, 20)
clicks = pytest.mark.parametrize("backbone", CLICKS, ids=lambda b: type(b).__name__.lower())
ranking = pytest.mark.parametrize("name", RANKING)


def click_log(task):
    """A log in which two users, two items and a value of each of them have no TRAIN row."""
    data = contract_data(task)
    genre, group = (np.array(f["x"].codes) for f in ({"x": data.item_fields["genre"]},
                                                     {"x": data.user_fields["group"]}))  # fmt: skip
    genre[list(COLD_ITEMS)], group[list(COLD_USERS)] = (4, 5), (3, 4)
    cold = np.isin(data.user, COLD_USERS) | np.isin(data.item, COLD_ITEMS)
    split = np.where(cold & (data.split == TRAIN), TEST, data.split).astype(np.int8)
    return dataclasses.replace(
        data, split=split, item_fields={"genre": Field(genre, ("a", "b", "c", "d", "e"))},
        user_fields={"group": Field(group, ("x", "y", "z", "w"))},
    )  # fmt: skip


@pytest.fixture(scope="module")
def rings():
    """Users 37 to 40 have validation and test rows alone, and items 29 and 30 test rows."""
    data = planted_rings(n_users=40, n_items=30, seed=3).data
    split = data.split.copy()
    split[(data.user > 36) & (split == TRAIN)] = VALID
    split[data.item > 28] = TEST
    return dataclasses.replace(data, split=split)


def trained(backbone, data, **parts):
    inputs = facts_of(data) if isinstance(backbone, GraphOfFacts) else parts.pop("inputs", {})
    return fit(Train(backbone, Table("splits", task=data.task), **parts), data, inputs, seed=0)


def test_every_backbone_is_asked():
    for module in pkgutil.iter_modules(models.__path__):
        if not module.name.endswith("_net"):
            importlib.import_module(f"{models.__name__}.{module.name}")
    every = {k for k in Backbone.__subclasses__() if k.__module__.startswith(models.__name__)}
    every |= {k for b in list(every) for k in b.__subclasses__()} - {ClickSettings, GraphOfFacts}
    asked = {type(b) for b in [*CLICKS, *RANKING.values()]} | {NAML}
    assert {k.__name__ for k in every - asked} == WITHOUT_IDS


@clicks
def test_clicks_of_unmet_ids_and_values_are_those_of_unknown_ones(backbone):
    data = click_log(sorted(backbone.tasks)[0])
    how = dataclasses.replace(backbone.fit, epochs=1, min_epochs=1, weight_decay=0.1)
    served = trained(dataclasses.replace(backbone, std=0.5, fit=how), data).served
    history, given = [np.array([1, 5, 8])] * 4, [np.array([5.0, 2.0, 5.0])] * 4
    items = served.predict(np.array([1] * 4), np.array([*COLD_ITEMS, 0, 3]), history, given)
    np.testing.assert_allclose(items[:2], items[2], atol=1e-6)
    assert abs(items[3] - items[2]) > 1e-5  # of an item that training met
    users = served.predict(np.array([*COLD_USERS, 0, 1]), np.array([3] * 4), history, given)
    np.testing.assert_allclose(users[:2], users[2], atol=1e-6)
    behind = [np.array([1, c, 8]) for c in COLD_ITEMS]
    seen = served.predict(np.array([1] * 2), np.array([3] * 2), behind, given[:2])
    np.testing.assert_allclose(seen[0], seen[1], atol=1e-6)  # in a history as well


@ranking
def test_a_user_without_training_rows_is_scored_as_an_unknown_one(name, rings):
    backbone = RANKING[name]
    data = log_of(backbone, rings)
    served = trained(backbone, data).served
    history = data.item[data.user == 40]
    scores = served.scores(np.array([40, 39, 0, 1]), [history] * 4)[:, 1:]
    np.testing.assert_allclose(scores[:2], scores[[2, 2]], rtol=1e-4, atol=1e-5)
    if isinstance(backbone, BPRMF) or name in ("caser", "lightgcn-ssm", "cke", "cfkg", "hgcf"):
        assert np.abs(scores[3] - scores[2]).max() > 1e-3


@pytest.mark.parametrize("name", [n for n in RANKING if n.endswith("in_batch")])
def test_items_that_are_no_negative_score_alike(name, rings):
    data = log_of(RANKING[name], rings)
    if data.item_texts:  # of equal words
        codes = data.item_texts["title"].codes.copy()
        codes[29:] = codes[29]
        title = dataclasses.replace(data.item_texts["title"], codes=codes)
        data = dataclasses.replace(data, item_texts={"title": title})
    served = trained(RANKING[name], data).served
    scores = served.scores(np.array([1, 2]), [np.array([3, 4]), np.array([5])])
    np.testing.assert_allclose(scores[:, 29], scores[:, 30], atol=1e-6)


def test_what_a_history_row_is_about_is_met(rings):
    split = rings.split.copy()
    split[(rings.user == 1) & (rings.item == rings.item[rings.user == 1][0])] = HISTORY
    split[(rings.user == 40) & (split == VALID)] = HISTORY
    data = dataclasses.replace(rings, split=split)
    found = met.met_of(data)
    assert found.items[data.item[data.user == 1][0]] and not found.users[40]
    only = set(data.item[(data.user == 40) & (split == HISTORY)]) - set(data.item[split == TRAIN])
    assert not found.items[list(only)].any() and not found.items[0] and not found.users[0]


def test_categories_that_no_met_news_has_are_zero():
    data = click_log("news")
    net = NAML(word_dim=8, filters=8, category_dim=4, attention=4).build(data, 0)
    rows = net.categories.values.weight.detach().any(1)
    assert rows.tolist() == [False, True, True, True, False, False]


def rows_of_met(state, data):
    found = met.met_of(data)
    sizes = {data.n_users + 1: found.users, data.n_items + 1: found.items}
    return {k: v[sizes[len(v)]] if v.ndim and len(v) in sizes else v for k, v in state.items()}


@pytest.mark.parametrize("name", ["bprmf-bpr", "lightgcn-ssm", "hgcf", "caser", "deepfm", "din"])
def test_met_rows_are_trained_to_the_same_bits(name, rings, monkeypatch):
    click = {type(b).__name__.lower(): b for b in CLICKS}.get(name)
    backbone, data = (click, click_log("ctr")) if click else (RANKING[name], rings)
    how = dataclasses.replace(FIT, metric=backbone.fit.metric)
    backbone = dataclasses.replace(backbone, fit=how)
    new = rows_of_met(trained(backbone, data).state, data)
    for module in (met, factor_net, ctr_net, hgcf_net):
        monkeypatch.setattr(module, "forget", lambda *_: None)
    old = rows_of_met(trained(backbone, data).state, data)
    differ = {k for k in new if not np.array_equal(new[k], old[k])}
    assert differ <= {"items.values.weight", "users.values.weight"}  # values have rows of their own


SOURCE = Table("items")


@pytest.mark.parametrize("name", ["bprmf-in_batch", "lightgcn-in_batch", "caser"])
def test_a_filled_row_of_an_unmet_item_stays(name, rings):
    vectors = np.random.default_rng(0).normal(size=(30, 16)).astype(np.float32)
    table = VectorTable("item", rings.items.ids, vectors, np.arange(30) != 29)
    part = FromVectors("item", SOURCE, scale=0.5)
    backbone = dataclasses.replace(RANKING[name], fit=dataclasses.replace(FIT, weight_decay=0.0))
    state = trained(backbone, rings, init=(part,), inputs={SOURCE: table}).state
    np.testing.assert_allclose(state["item_table.weight"][29], 0.5 * vectors[28], rtol=1e-6)
    assert not state["item_table.weight"][30].any()  # no vector


def test_a_filled_user_is_known_and_the_scale_is_that_of_the_draw(rings):
    vectors = np.random.default_rng(1).normal(size=(40, 16)).astype(np.float32)
    table = VectorTable("user", rings.users.ids, vectors, np.arange(40) != 39)
    users: Node = Table("users")
    backbone = BPRMF(dim=16, loss="bpr", fit=dataclasses.replace(FIT, weight_decay=0.0))
    drawn = backbone.build(rings, 0).user_table.weight.detach()[1:37]
    result = trained(backbone, rings, init=(FromVectors("user", users),), inputs={users: table})
    row = result.state["user_table.weight"][39]
    np.testing.assert_allclose(
        row / vectors[38], float(drawn.std() / vectors[:39].std()), rtol=1e-2
    )
    history = [rings.item[rings.user == 39]]
    own = result.served.scores(np.array([39]), history)[0, 1:]
    np.testing.assert_allclose(own, result.state["item_table.weight"][1:] @ row, atol=1e-5)
    strangers = result.served.scores(np.array([40, 0]), history * 2)
    assert np.array_equal(strangers[0], strangers[1])


def test_a_warm_start_gives_a_user_who_is_met_now_a_draw(rings):
    backbone = BPRMF(dim=8, loss="bpr", fit=FIT)
    state = trained(backbone, rings).state
    split = rings.split.copy()
    split[(rings.user == 40) & (split == VALID)] = TRAIN
    later = dataclasses.replace(rings, split=split)
    model = build(backbone, later, seed=1)
    drawn = model.user_table.weight.detach().clone()
    assert not carry(model, state, rings, later)
    now = model.user_table.weight.detach()
    assert torch.equal(now[40], drawn[40]) and now[40].any()
    assert np.array_equal(now[1].numpy(), state["user_table.weight"][1]) and not now[39].any()
