from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from llmers_pipelines.api import BPRMF, SASRec
from llmers_pipelines.data.training import TEST, TRAIN, VALID, IdMap, TrainingData
from llmers_pipelines.evaluate.predict import rank_table
from llmers_pipelines.models import product_net, ranking_net
from llmers_pipelines.models.product_net import Product, behind, lead
from llmers_pipelines.models.ranking_net import (
    full_metric,
    rank_metric,
    rank_targets,
    rank_variants,
)
from llmers_pipelines.models.served import Served, fold
from llmers_pipelines.testing.planted import planted_rings


class Rows:
    """The same model without its factors: ranks come from rows of scores."""

    def __init__(self, served):
        self.scores = served.scores


@pytest.fixture
def data():
    """Some users have a second target, some one that they had seen."""
    made = planted_rings(n_users=90, n_items=70).data
    held = np.flatnonzero(made.split == TEST)
    first = np.flatnonzero(made.split == TRAIN)[::9][:10]
    user = np.concatenate([made.user, made.user[held[:20]], made.user[first]])
    item = np.concatenate([made.item, made.item[held[:20]] % 70 + 1, made.item[first]])
    order = np.argsort(user, kind="stable")
    split = np.concatenate([made.split, np.full(30, TEST, np.int8)])
    return dataclasses.replace(
        made, user=user[order], item=item[order], split=split[order],
        time=np.arange(len(user)), **{
            name: getattr(made, name) for name in ("rating", "label") if getattr(made, name) is None
        },
    )  # fmt: skip


@pytest.mark.parametrize("backbone", [BPRMF(dim=16), BPRMF(dim=16, loss="bpr"), SASRec(dim=16)])
@pytest.mark.parametrize("ties", [False, True])
def test_a_product_net_as_its_rows_of_scores(backbone, ties, data, monkeypatch):
    monkeypatch.setattr(product_net, "CHUNK_ITEMS", 16)
    model = backbone.build(data, 0).eval()
    if ties:  # rows of equal vectors
        with torch.no_grad():
            model.item_table.weight[1:] = model.item_table.weight[torch.arange(70) // 7 + 1]
    served = Served(fold(model))
    assert served.product([1], [np.array([2])]) is not None
    for repeats in ("drop", "keep"):
        ours = rank_table(served, data, TEST, repeats=repeats)
        assert ours.equals(rank_table(Rows(served), data, TEST, repeats=repeats))
    assert not ties or (ours["rank"].to_numpy() % 1 > 0).any()
    ranks = rank_targets(model, data, TEST)
    plain = rank_variants(model, data, TEST, lambda state: [model.score(state)], 1)[0]
    np.testing.assert_array_equal(ranks.rank, plain.rank)
    np.testing.assert_array_equal(ranks.candidates, plain.candidates)


def test_the_lead_of_a_hand_counted_case_over_many_chunks(monkeypatch):
    monkeypatch.setattr(product_net, "CHUNK_ITEMS", 2)
    monkeypatch.setattr(product_net, "FULL", 1)
    items = torch.tensor([9.0, 3, 1, 2, 2, 5, 4, 2])[:, None]
    product = Product(torch.tensor([[1.0], [-1.0]]), items, 0.5)
    # user 0, item 3 (2.0): above 3, 5, 4 without the seen 5; below 1; ties do not count
    # user 1, item 1 (-3): above are 1, 2, 2, 2 without the seen 1; below are 5 and 4
    seen_row, seen_item = np.array([0, 1]), np.array([5, 2])
    assert lead(product, np.array([3, 1]), seen_row, seen_item).tolist() == [2 - 1, 3 - 2]


def test_targets_behind_enough_items_in_a_hand_counted_case():
    items = torch.tensor([99.0, 3, 1, 2, 2, 5, 4, 2])[:, None]
    few = np.array([1, 3, 4, 5])
    none = np.zeros(0, int)
    product = Product(torch.tensor([[1.0], [1.0], [-1.0]]), items, 0.5)
    target = np.array([2, 7, 2])  # 1 is below 3, 2, 2 and 5; 2 below 3 and 5, as the ties are not
    for within, found in ((2, [True, True, False]), (3, [True, False, False]), (5, [False] * 3)):
        assert behind(product, target, none, none, few, within).tolist() == found
    seen = np.array([0, 0, 1]), np.array([3, 6, 5])  # item 6 is none of the few
    assert behind(product, target, *seen, few, 3).tolist() == [True, False, False]
    assert behind(product, target, *seen, few, 2).tolist() == [True, False, False]
    down = dataclasses.replace(product, scale=-0.5)  # scores fall where products rise
    assert behind(down, target, none, none, few, 4).tolist() == [False, False, True]
    near = torch.tensor([0.0, 1, 1 + 2**-23])[:, None]  # may come out equal in another product
    one = Product(torch.ones(1, 1), near)
    assert not behind(one, np.array([1]), none, none, np.array([2]), 1).any()


@pytest.mark.parametrize("backbone", [BPRMF(dim=16), BPRMF(dim=16, loss="bpr"), SASRec(dim=16)])
@pytest.mark.parametrize("within", [1, 5, 10])
def test_ranks_up_to_a_place_are_those_of_the_full_ranking(backbone, within, monkeypatch):
    data = planted_rings(n_users=90, n_items=70).data
    model = backbone.build(data, 0).eval()
    with torch.no_grad():  # some vectors are equal
        model.item_table.weight[1:21] = model.item_table.weight[torch.arange(20) // 4 + 1]
    full = rank_targets(model, data, TEST)
    left = []
    for few, block in ((9, 512), (30, 512), (30, 8), (30, 1)):
        monkeypatch.setattr(ranking_net, "FEW_ITEMS", few)
        monkeypatch.setattr(ranking_net, "STATE_ROWS", block)  # of those that are left
        ranks = rank_targets(model, data, TEST, within)
        first = full.rank <= within
        np.testing.assert_array_equal(ranks.rank[first], full.rank[first])
        assert (ranks.rank[~first] > within).all() and first.any()
        assert (ranks.rank <= ranks.candidates).all()
        np.testing.assert_array_equal(ranks.candidates, full.candidates)
        for name in (f"ndcg@{within}", f"hr@{within}"):
            assert full_metric(name, model, data, TEST) == rank_metric(name, full)
        left.append((ranks.rank != full.rank).sum())
    assert left[1] > 10  # targets whose rank was not sought


def test_targets_get_the_value_that_their_chunk_gives(monkeypatch):
    """A product of another shape may round differently: then the first guess is replaced."""
    real, calls = product_net._compared, []

    def guessed_wrong(product, own, *rest):
        calls.append(own)
        if len(calls) == 1:
            own += 0.5
        return real(product, own, *rest)

    rng = np.random.default_rng(0)
    items, state = (torch.from_numpy(rng.standard_normal((n, 8), np.float32)) for n in (60, 9))
    args = Product(state, items), np.arange(1, 10), np.zeros(0, int), np.zeros(0, int)
    right = lead(*args)
    monkeypatch.setattr(product_net, "_compared", guessed_wrong)
    assert lead(*args).tolist() == right.tolist() and len(calls) == 2


def of_equal_items(n_users, n_items, held):
    """A log whose users hold out ``held`` items, the last of the catalog among them, and a model in
    which all items are one."""
    split = np.tile([TRAIN, TRAIN, VALID, *[TEST] * held], n_users).astype(np.int8)
    item = np.tile([1, 2, 3, *range(n_items - held + 1, n_items + 1)], n_users)
    user = np.repeat(np.arange(1, n_users + 1), 3 + held)
    ids = (IdMap(tuple(f"{n}" for n in range(size))) for size in (n_users, n_items))
    data = TrainingData("sequential", *ids, user, item, np.arange(len(user)), split)
    model = BPRMF(dim=64, loss="bpr").build(data, 0).eval()
    with torch.no_grad():
        model.item_table.weight[1:] = model.item_table.weight[1]
    return data, model


@pytest.mark.parametrize("users", [1, 2, 3, 7, 513, 515])
@pytest.mark.parametrize("held", [1, 2])
def test_equal_items_tie_in_blocks_of_any_size(users, held):
    data, model = of_equal_items(users, 333, held)
    served = Served(fold(model))
    for ranker in (served, Rows(served)):
        table = rank_table(ranker, data, TEST)
        middle = (table["n_candidates"].to_numpy() + 1) / 2
        assert len(middle) == users * held
        assert np.array_equal(table["rank"].to_numpy(), middle)
    for product in (model.as_product, None):
        one = rank_variants(model, data, TEST, lambda s: [model.score(s)], 1, product=product)[0]
        assert np.array_equal(one.rank, (one.candidates + 1) / 2)


@pytest.mark.parametrize("users", [1, 513])
def test_equal_items_tie_where_only_first_places_are_sought(users, monkeypatch):
    monkeypatch.setattr(ranking_net, "FEW_ITEMS", 20)
    data, model = of_equal_items(users, 333, 1)
    ranks = rank_targets(model, data, TEST, within=10)
    assert np.array_equal(ranks.rank, (ranks.candidates + 1) / 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e37])
def test_scores_that_may_not_be_finite_take_the_other_way(bad, data):
    model = BPRMF(dim=4, loss="bpr").build(data, 0).eval()
    with torch.no_grad():
        model.item_table.weight[5] = bad
    assert not model.as_product(torch.ones(2, 4)).countable()
    if np.isnan(bad):
        with pytest.raises(ValueError, match="NaN"):
            rank_table(Served(fold(model)), data, TEST)
    assert np.isfinite(rank_targets(model, data, TEST).rank).all()
