"""The input vector as a learned offset over an adapted text vector."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.enhance.tables_net import item_vectors
from llmers_pipelines.enhance.text_offset import TextOffset
from llmers_pipelines.enhance.text_offset_net import TextOffsetHook
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.gru4rec import GRU4Rec
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.models.served import fold
from llmers_pipelines.plan import PlanError, Table, Train
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.loop import fit

pytestmark = pytest.mark.proof("dllm2rec", "equations")
LOG, ITEMS = Table("splits", task="sequential"), Table("items")
FIT = Fit(lr=3e-3, batch=16, epochs=2, min_epochs=1)
BACKBONES = {
    "sasrec": SASRec(dim=8, inner=16, dropout=0.2, fit=FIT),
    "gru4rec": GRU4Rec(dim=8, hidden=12, dropout=0.2, fit=FIT),
}
every = pytest.mark.parametrize("name", BACKBONES)


@pytest.fixture(scope="module")
def rings():
    return planted_rings(n_users=30, n_items=20, seed=2)


def test_an_item_is_its_offset_plus_the_weighted_map_of_its_vector():
    hook = TextOffsetHook(torch.tensor([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]), 2, 0.5)
    with torch.no_grad():
        hook.adapt.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
        hook.adapt.bias.copy_(torch.tensor([10.0, 20.0]))
    own = torch.tensor([[7.0, 7.0], [7.0, 7.0], [0.0, 0.0]])
    found = hook.item_input(None, lambda ids: own, torch.tensor([1, 2, 0]))
    # e + .5 (W z + b); without a vector e + .5 b; padding stays as it is
    assert found.tolist() == [[12.5, 20.0], [12.0, 17.0], [0.0, 0.0]]


@every
def test_the_folded_table_scores_like_the_model(name, rings):
    model = BACKBONES[name].build(rings.data, 0)
    attach_parts(model, (TextOffset(ITEMS),), rings.data, {ITEMS: rings.items}, 0)
    from llmers_pipelines.models.ranking_net import scoring_batch

    batch = scoring_batch(np.array([1, 2]), [np.array([3, 4, 5]), np.array([6])], None)
    model.eval()
    with torch.no_grad():
        before = model.score(model.user_state(batch))
        served = fold(model)
        after = served.score(served.user_state(batch))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-6)
    assert not list(served.hooks)
    assert torch.equal(served.output_table, model.item_table.weight)  # outputs have no text


@every
def test_weight_0_is_the_backbone_bit_for_bit(name, rings):
    base = fit(Train(BACKBONES[name], LOG), rings.data, {}, seed=1).export()[1]
    train = Train(BACKBONES[name], LOG, fuse=(TextOffset(ITEMS, weight=0.0),))
    off = fit(train, rings.data, {ITEMS: rings.items}, seed=1).export()[1]
    assert set(off) == set(base)
    assert all(np.array_equal(off[k], base[k]) for k in base)


def test_vectors_stay_frozen_and_join_by_id(rings):
    vectors = np.array(rings.items.vectors)
    before = vectors.copy()
    order = np.random.default_rng(0).permutation(len(vectors))
    mask = np.ones(len(vectors), bool)
    mask[3] = False
    table = VectorTable("item", rings.items.ids, vectors, mask)
    ids = tuple(rings.items.ids[i] for i in order)
    other = VectorTable("item", ids, vectors[order], mask[order])
    one, two = (item_vectors(t, rings.data.items, "x", missing="zero") for t in (table, other))
    assert torch.equal(one, two)
    assert not one[4].any() and not one[0].any()  # item 4 has mask False
    train = Train(BACKBONES["sasrec"], LOG, fuse=(TextOffset(ITEMS),))
    fit(train, rings.data, {ITEMS: table}, seed=0)
    assert np.array_equal(vectors, before)


@pytest.mark.parametrize(("scale", "expected"), [("match", 0.1), (0.3, 0.3)])
def test_the_map_starts_at_the_asked_scale(scale, expected, rings):
    backbone = dataclasses.replace(BACKBONES["sasrec"], dim=64)
    model = backbone.build(rings.data, 0)
    part = TextOffset(ITEMS, scale=scale)
    hook = part.attach(model, rings.data, {ITEMS: rings.items}, 0)
    found = float(hook.adapt(hook.vectors[1:]).detach().std())
    if scale == "match":
        expected = float(model.item_table.weight[1:].std())
    assert found == pytest.approx(expected, rel=1e-4)


def test_wrong_settings_and_vectors_are_named(rings):
    with pytest.raises(PlanError, match="needs `source`"):
        TextOffset()
    with pytest.raises(PlanError, match="scale is 'big'"):
        TextOffset(ITEMS, scale="big")
    users = VectorTable("user", ("u1",), np.ones((1, 3), np.float32), np.ones(1, bool))
    with pytest.raises(ValueError, match="expected vectors of items"):
        item_vectors(users, rings.data.items, "x", missing="zero")
