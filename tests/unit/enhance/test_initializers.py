from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from llmers_pipelines.config import Method
from llmers_pipelines.data.training import TRAIN, IdMap
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.derive.item_vectors import ItemVectors
from llmers_pipelines.enhance.from_vectors import FromVectors
from llmers_pipelines.enhance.mean_of_history import MeanOfHistory
from llmers_pipelines.models.hgcf import HGCF
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.models.seams import check_seams
from llmers_pipelines.orchestrate.build import instantiate
from llmers_pipelines.plan import Derive, PlanError, Table, Train
from llmers_pipelines.recipe import discover
from llmers_pipelines.testing.contract import contract_data, stand_in
from llmers_pipelines.testing.planted import leave_one_out

pytestmark = [pytest.mark.proof("llm2x", "equations"), pytest.mark.proof("llm_init", "equations")]

ITEMS, USERS = Table("items"), Table("users")
SASREC, LIGHTGCN = SASRec(dim=4, inner=8), LightGCN(dim=4)


@pytest.fixture
def data():
    walks = [np.array(w) for w in ([1, 5, 6], [1, 2, 1, 5, 6], [3, 4, 5, 6], [7, 7, 5, 6])]
    log = leave_one_out(walks, 8)
    none = np.where(log.user == 4, 3, log.split)  # user 4 has history rows alone
    return dataclasses.replace(log, split=none.astype(np.int8))


def vectors(entity="item", ids=("i3", "i1", "i2", "i9", "i8"), width=4, scale=7.0):
    rng = np.random.default_rng(0)
    rows = (scale * rng.standard_normal((len(ids), width))).astype(np.float32)
    return VectorTable(entity, ids, rows, np.array([True] * (len(ids) - 1) + [False]))


def test_rows_are_joined_by_id_scaled_and_the_rest_keeps_its_start(data):
    before = SASREC.build(data, 0).item_table.weight.detach().clone()
    model, table = SASREC.build(data, 0), vectors()
    attach_parts(model, (FromVectors("item", ITEMS),), data, {ITEMS: table}, 0)
    found = model.item_table.weight.detach()
    given = {i: torch.from_numpy(v) for i, v in zip(table.ids, table.vectors, strict=True)}
    real = torch.stack([given[i] for i in ("i1", "i2", "i3")])
    factor = float(before[1:].std() / real.std())
    for position in (1, 2, 3):
        torch.testing.assert_close(found[position], factor * given[f"i{position}"])
    assert float(found[[1, 2, 3]].std()) == pytest.approx(float(before[1:].std()))
    assert torch.equal(found[4:], before[4:])  # no row, or (i8) a row that is a fallback
    assert not found[0].any()
    assert model.item_table.weight.requires_grad
    assert len(model.hooks) == 0


def test_a_number_is_the_factor_itself(data):
    model, table = SASREC.build(data, 0), vectors()
    attach_parts(model, (FromVectors("item", ITEMS, scale=0.5),), data, {ITEMS: table}, 0)
    np.testing.assert_allclose(model.item_table.weight[3].detach(), 0.5 * table.vectors[0])


def test_users_can_start_from_vectors_too(data):
    model = LIGHTGCN.build(data, 0)
    table = vectors("user", ("u2", "u1"))
    attach_parts(model, (FromVectors("user", USERS, 1.0),), data, {USERS: table}, 0)
    np.testing.assert_allclose(model.user_table.weight[2].detach(), table.vectors[0])


def test_the_first_step_moves_batch_rows_and_never_the_padding(data):
    model = SASREC.build(data, 0)
    attach_parts(model, (FromVectors("item", ITEMS),), data, {ITEMS: vectors()}, 0)
    before = model.item_table.weight.detach().clone()
    from llmers_pipelines.train.loop import load_loader

    optimizer = torch.optim.Adam(model.parameters())
    model.loss(next(iter(load_loader("sequence")(data, SASREC, 0).epoch(1)))).backward()
    optimizer.step()
    moved = (model.item_table.weight.detach() != before).any(1)
    assert moved[[1, 2, 3]].all()
    assert not moved[0]


def test_mistakes_with_vectors_are_named(data):
    def attach(table, side="item", backbone=LIGHTGCN):
        model = backbone.build(data, 0)
        attach_parts(model, (FromVectors(side, ITEMS),), data, {ITEMS: table}, 0)

    with pytest.raises(ValueError, match=r"width 6, the item table has width 4.*PCA\(dim=4\)"):
        attach(vectors(width=6))
    with pytest.raises(ValueError, match="vectors of users, expected vectors of items"):
        attach(vectors("user"))
    with pytest.raises(ValueError, match="none of its 2 rows is one of the items of the log"):
        attach(vectors(ids=("a", "b")))
    with pytest.raises(ValueError, match=r"rows has knowledge: \d+ are items .*in quarantine"):
        attach(dataclasses.replace(table := vectors(), mask=np.zeros_like(table.mask)))
    bad = vectors()
    bad.vectors[1, 2] = np.nan
    with pytest.raises(ValueError, match="vector of item 'i1' is not finite"):
        attach(bad)
    flat = vectors()
    flat.vectors[:] = 1
    with pytest.raises(ValueError, match="all entries of the vectors are equal"):
        attach(flat)
    with pytest.raises(PlanError, match="side is 'both'"):
        FromVectors("both", ITEMS)
    with pytest.raises(PlanError, match="needs `source`"):
        FromVectors("item")
    with pytest.raises(PlanError, match="scale is 'unit'"):
        FromVectors("item", ITEMS, scale="unit")


def test_the_needed_seam_follows_the_side():
    check_seams(SASREC, (FromVectors("item", ITEMS),), "x")
    with pytest.raises(PlanError, match="FromVectors needs the seam 'user_table'"):
        check_seams(SASREC, (FromVectors("user", ITEMS),), "x")
    with pytest.raises(PlanError, match="MeanOfHistory needs the seam 'user_table'"):
        check_seams(SASREC, (MeanOfHistory(),), "x")


def test_users_start_as_the_mean_of_their_training_items(data):
    before = LIGHTGCN.build(data, 0).user_table.weight.detach().clone()
    model = LIGHTGCN.build(data, 0)
    parts = (FromVectors("item", ITEMS), MeanOfHistory())
    attach_parts(model, parts, data, {ITEMS: vectors()}, 0)
    users, items = model.user_table.weight.detach(), model.item_table.weight.detach()
    assert torch.equal(users[1], items[1])  # one item: exactly there
    torch.testing.assert_close(users[2], (items[1] + items[2]) / 2)  # item 1 counts once
    torch.testing.assert_close(users[3], (items[3] + items[4]) / 2)
    assert torch.equal(users[4], before[4])  # no training item: no division by zero
    assert not users[0].any()


def test_means_of_given_vectors_leave_out_items_without_one(data):
    model, table = LIGHTGCN.build(data, 0), vectors()
    attach_parts(model, (MeanOfHistory(ITEMS, scale=2.0),), data, {ITEMS: table}, 0)
    users = model.user_table.weight.detach().numpy()
    np.testing.assert_allclose(users[3], 2 * table.vectors[0], rtol=1e-6)  # i3 alone, i4 has none
    np.testing.assert_allclose(users[2], table.vectors[1] + table.vectors[2], rtol=1e-6)


def test_shuffled_rows_on_disk_give_the_same_start(data):
    table = vectors()
    order = [4, 2, 0, 1, 3]
    other = VectorTable(
        "item", tuple(table.ids[i] for i in order), table.vectors[order], table.mask[order]
    )
    starts = []
    for t in (table, other):
        model = LIGHTGCN.build(data, 0)
        parts = (FromVectors("item", ITEMS), MeanOfHistory())
        attach_parts(model, parts, data, {ITEMS: t}, 0)
        starts.append(model.state_dict())
    for name in starts[0]:
        torch.testing.assert_close(starts[0][name], starts[1][name])
    assert isinstance(data.items, IdMap) and (data.split == TRAIN).any()


def test_tables_of_points_do_not_start_from_coordinates_of_points():
    """A hyperbolic model scores by D + 1 coordinates; its tables hold D. Said before anything runs:
    LLM-InS with ``update`` would fail after its language model was asked."""
    recipes = discover()
    with pytest.raises(PlanError, match=r"llm_ins: FromVectors: .*HGCF.*width 51.*width 50.*leave"):
        instantiate(Method("llm_ins", "hgcf", {"update": True}), recipes)
    for backbone, update in (("hgcf", False), ("lightgcn", True)):
        _, node = instantiate(Method("llm_ins", backbone, {"update": update}), recipes)
        assert len(node.init) == 2 * update
    log = contract_data("collaborative")
    for backbone in (HGCF(dim=4), LIGHTGCN):  # what the contract stands in is as wide as the real
        trained = Train(backbone, Table("splits", task="collaborative"))
        found = stand_in(Derive(ItemVectors(), trained), log).vectors.shape[1]
        assert found == backbone.build(log, 0).item_output().shape[1]
