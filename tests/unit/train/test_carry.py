"""Weights carried over to a log with other entities: by id, and new items from their vectors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from llmers_pipelines.api import (
    BPRMF,
    DualView,
    Fit,
    FromVectors,
    GRU4Rec,
    LightGCN,
    SASRec,
    SideFeatures,
    Table,
    TextOffset,
    Train,
)
from llmers_pipelines.data.training import IdMap, TrainingData
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.orchestrate.carry import new_items, same_rows
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.carry_net import carry, extended
from llmers_pipelines.train.loop import fit

ITEMS, LOG = Table("items"), Table("splits", task="sequential")
FIT = Fit(batch=16, epochs=2, min_epochs=1)
NEW, PLACE = "fresh", 7  # the new id, and its position (from 1) in the longer list


@pytest.fixture(scope="module")
def rings():
    return planted_rings(n_users=30, n_items=20, width=8)


def with_new_item(data: TrainingData) -> TrainingData:
    """Return the log with one more item that no row names, in the middle of the list."""
    ids = list(data.items.ids)
    ids.insert(PLACE - 1, NEW)
    item = data.item + (data.item >= PLACE)
    return dataclasses.replace(data, items=IdMap(tuple(ids)), item=item)


def with_vector(table: VectorTable) -> VectorTable:
    vector = table.vectors[3] + 0.01
    return VectorTable("item", (*table.ids, NEW), np.vstack([table.vectors, vector]),
                       np.append(table.mask, True))  # fmt: skip


def histories(data: TrainingData, users: np.ndarray) -> list[np.ndarray]:
    return [data.item[data.user_start[u] : data.user_start[u + 1]] for u in users]


SEQUENCE = SASRec(dim=8, inner=16, max_len=8, fit=FIT)
CASES = {
    "bare": (SEQUENCE, {}),
    "init": (SEQUENCE, {"init": (FromVectors("item", ITEMS),)}),
    "offset": (SEQUENCE, {"fuse": (TextOffset(ITEMS),)}),
    "dual view": (SEQUENCE, {"fuse": (DualView(ITEMS, heads=2),)}),
    "recurrent": (GRU4Rec(dim=8, max_len=8, fit=FIT), {"init": (FromVectors("item", ITEMS),)}),
    "graph": (LightGCN(dim=8, fit=FIT), {"init": (FromVectors("item", ITEMS),)}),
    "pairs": (BPRMF(dim=8, fit=FIT), {"init": (FromVectors("item", ITEMS),)}),
    "side features": (LightGCN(dim=8, fit=FIT), {"fuse": (SideFeatures(text=ITEMS),)}),
}  # fmt: skip
# The others use vectors in histories alone, or through users: a target that nobody met has none.
KNOWS = ("init", "dual view", "recurrent", "graph", "pairs")


@pytest.mark.parametrize("name", CASES)
def test_known_items_keep_their_scores_and_a_new_one_gets_a_row(rings, name) -> None:
    backbone, parts = CASES[name]
    train = Train(backbone, LOG, **parts)
    inputs = {ITEMS: rings.items} if parts else {}
    trained = fit(train, rings.data, inputs, seed=0)
    data = with_new_item(rings.data)
    assert same_rows(rings.data, data) and new_items(rings.data, data) == [NEW]
    now = {ITEMS: with_vector(rings.items)} if parts else {}
    record = {"epochs": trained.epochs, "best_epoch": trained.best_epoch}
    found = extended(train, trained.state, (rings.data, inputs), (data, now), record, seed=0)
    assert found is not None
    found, unknown = found
    assert found.epochs == trained.epochs
    assert unknown == ([] if name in KNOWS else [NEW])
    users = np.arange(1, 31)
    before = trained.scores(users, histories(rings.data, users))
    after = found.scores(users, histories(data, users))
    known = np.delete(np.arange(22), PLACE)
    np.testing.assert_allclose(after[:, known], before, atol=1e-5)
    assert np.isfinite(after[:, PLACE]).all()
    if name in KNOWS:  # its vector is nearly that of item 4, so its scores lie near as well
        order = np.corrcoef(np.stack([after[:, PLACE], *after[:, known[1:]].T]))[0, 1:]
        assert order[3] > np.median(order), order


def test_a_new_row_is_its_scaled_vector(rings) -> None:
    train = Train(SEQUENCE, LOG, init=(FromVectors("item", ITEMS, scale=2.0),))
    trained = fit(train, rings.data, {ITEMS: rings.items}, seed=0)
    data, now = with_new_item(rings.data), with_vector(rings.items)
    record = {"epochs": [], "best_epoch": 1}
    found = extended(train, trained.state, (rings.data, {ITEMS: rings.items}),
                     (data, {ITEMS: now}), record, seed=0)  # fmt: skip
    assert found is not None
    table = found[0].model.item_table.weight.detach().numpy()
    np.testing.assert_allclose(table[PLACE], 2.0 * now.vectors[-1], rtol=1e-6)
    old = trained.model.item_table.weight.detach().numpy()
    np.testing.assert_array_equal(np.delete(table, PLACE, 0), old)


def test_a_warm_start_takes_rows_by_id_and_leaves_new_ones_at_their_start(rings) -> None:
    trained = fit(Train(SEQUENCE, LOG), rings.data, {}, seed=0)
    ids = ("other", *rings.data.items.ids[::-1])
    item = 22 - rings.data.item
    data = dataclasses.replace(rings.data, items=IdMap(ids), item=item)
    model = SEQUENCE.build(data, 1)
    start = model.item_table.weight.detach().numpy().copy()
    assert carry(model, trained.state, rings.data, data) == []
    found = model.item_table.weight.detach().numpy()
    np.testing.assert_array_equal(found[2:], trained.state["item_table.weight"][:0:-1])
    np.testing.assert_array_equal(found[1], start[1])
    assert not found[0].any()
    torch.testing.assert_close(
        model.norm.weight.detach(), torch.from_numpy(trained.state["norm.weight"])
    )
    wider = SASRec(dim=16, inner=16, max_len=8, fit=FIT).build(data, 1)
    assert "item_table.weight" in carry(wider, trained.state, rings.data, data)


def test_what_training_reads_must_be_the_same(rings) -> None:
    data = with_new_item(rings.data)
    assert not same_rows(rings.data, rings.data), "nothing was added"
    assert not same_rows(rings.data, dataclasses.replace(data, time=data.time + 1))
    moved = data.split.copy()
    moved[0] = 3
    assert not same_rows(rings.data, dataclasses.replace(data, split=moved))
    first = data.item.copy()
    first[0] = PLACE  # somebody has met it
    assert not same_rows(rings.data, dataclasses.replace(data, item=first))


def test_attaching_twice_gives_the_same_start(rings) -> None:
    """Extension relies on it: building anew with the same seed gives the same frozen tables."""
    parts = (DualView(ITEMS, heads=2),)
    built = []
    for _ in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            model = SEQUENCE.build(rings.data, 3)
            attach_parts(model, parts, rings.data, {ITEMS: rings.items}, 3)
        built.append(model.state_dict())
    for name, tensor in built[0].items():
        torch.testing.assert_close(tensor, built[1][name])
