"""DLLM2Rec's ranking loss against hand-computed cases, and what it leaves alone."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional as F

from llmers_pipelines.data.training import HISTORY, TRAIN
from llmers_pipelines.enhance.ranking_distillation import RankingDistillation
from llmers_pipelines.enhance.ranking_distillation_net import (
    RankingHook,
    importance,
    ranking_bce,
    ranking_lists,
)
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.gru4rec import GRU4Rec
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.plan import PlanError, Table, Train
from llmers_pipelines.teach.teacher import positions_of, to_table
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.loop import fit, load_loader

pytestmark = pytest.mark.proof("dllm2rec", "equations")
LOG, TAUGHT = Table("splits", task="sequential"), Table("taught")
PART = RankingDistillation(TAUGHT, k=3)
FIT = Fit(lr=3e-3, batch=16, epochs=2, min_epochs=1)
BACKBONES = {
    "sasrec": SASRec(dim=16, inner=32, dropout=0.2, max_len=4, fit=FIT),
    "gru4rec": GRU4Rec(dim=16, hidden=24, dropout=0.2, max_len=4, fit=FIT),
}


@pytest.fixture(scope="module")
def rings():
    return planted_rings(n_users=30, n_items=20, seed=2).data


def random_rankings(data, k=3, seed=0):
    rng = np.random.default_rng(seed)
    user, position = positions_of(data)
    item = np.stack([rng.permutation(data.n_items)[:k] + 1 for _ in user])
    distance = np.sort(rng.random((len(user), k)), axis=1).astype(np.float32)
    return to_table(data, user, position, item, distance)


def test_importance_is_that_of_the_hand_computed_case():
    distance = torch.tensor([[0.0, math.log(2), math.log(4)]], dtype=torch.float64)
    real, agreed = torch.ones(1, 3, dtype=torch.bool), torch.tensor([[False, True, True]])

    def alone(**weights):
        zero = {"position": 0.0, "confidence": 0.0, "consistency": 0.0}
        how = dataclasses.replace(PART, **{**zero, **weights})
        return importance(distance, real, agreed, how)[0].tolist()

    assert alone(position=1.0) == pytest.approx([0.6652, 0.2447, 0.0900], abs=5e-5)
    assert alone(confidence=1.0) == pytest.approx([0.5714, 0.2857, 0.1429], abs=5e-5)
    assert alone(consistency=1.0) == pytest.approx([0.0, 0.5, 0.5], abs=1e-7)
    together = importance(distance, real, agreed, PART)[0].tolist()
    assert together == pytest.approx([0.4853, 0.3163, 0.1984], abs=5e-5)


def test_absent_items_take_no_part():
    distance = torch.tensor([[0.0, 1.0, 0.0]])
    real = torch.tensor([[True, True, False]])
    short = importance(distance[:, :2], real[:, :2], real[:, :2], PART)
    whole = importance(distance, real, real, PART)
    assert whole[0, 2] == 0
    assert torch.allclose(whole[:, :2], short)
    assert float(whole.sum()) == pytest.approx(1)


@pytest.mark.parametrize(("shifted", "expected"), [(True, 0.8221), (False, 1.2019)])
def test_the_loss_is_that_of_the_hand_computed_case(shifted, expected):
    weight = torch.tensor([[0.4853, 0.3163, 0.1984]])
    scores, negative = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([0.0])
    loss = ranking_bce(scores, negative, weight, shifted=shifted)
    assert float(loss) == pytest.approx(expected, abs=5e-5)


def test_rankings_join_by_id_whatever_their_order(rings):
    table = random_rankings(rings)
    shuffled = table.take(np.random.default_rng(1).permutation(table.num_rows))
    one, two = (ranking_lists(t, rings, 3, "x") for t in (table, shuffled))
    assert np.array_equal(one.item, two.item)
    assert np.array_equal(one.distance, two.distance)
    u, p = 5, 2
    rows = table.filter(pa.compute.and_(
        pa.compute.equal(table["user_id"], f"u{u}"), pa.compute.equal(table["position"], p)
    ))  # fmt: skip
    named = [rings.items.ids[i - 1] for i in one.item[one.start[u] + p]]
    assert named == rows["item_id"].to_pylist()


def test_rows_of_strangers_and_of_held_out_positions_are_left_out(rings):
    users = ["u1", "nobody", "u1", "u1", "u1"]
    table = pa.table({
        "user_id": users, "position": [1, 1, 99, 1, 1], "rank": [2, 1, 1, 1, 3],
        "item_id": ["i2", "i1", "i1", "no item", "i3"], "distance": [0.5, 0.0, 0.0, 0.0, 0.7],
    })  # fmt: skip
    lists = ranking_lists(table, rings, 3, "x")
    assert lists.item[lists.start[1] + 1].tolist() == [2, 3, 0]
    assert (lists.item > 0).sum() == 2
    with pytest.raises(ValueError, match="none of its 1 rows joins a training position"):
        ranking_lists(table.slice(1, 1), rings, 3, "x")
    with pytest.raises(ValueError, match=r"missing \['distance'\]"):
        ranking_lists(table.drop(["distance"]), rings, 3, "x")


def by_hand(model, batch, states, data, table, how):
    """The same mean, position by position, in plain Python, without the sampled negative."""
    wanted = {}
    for row in table.to_pylist():
        key = (int(data.users.index([row["user_id"]])[0]), row["position"])
        wanted.setdefault(key, []).append(row)
    table_out, losses = model.item_output().detach(), []
    for b in range(len(batch.user)):
        at = int(batch.begin[b])
        for c in range(batch.items.shape[1]):
            if batch.items[b, c] == 0:
                continue
            at += 1
            rows = sorted(wanted.get((int(batch.user[b]), at), []), key=lambda r: r["rank"])
            if not rows or batch.targets[b, c] == 0:
                continue
            scores = table_out @ states[b, c].detach()
            best = set((scores[1:].argsort(descending=True)[: how.k] + 1).tolist())
            ids = data.items.index([r["item_id"] for r in rows]).tolist()
            pos = [math.exp(-(r + 1) / how.beta) for r in range(len(rows))]
            conf = [math.exp(-r["distance"]) for r in rows]
            w = [
                how.position * p / sum(pos) + how.confidence * c / sum(conf)
                + how.consistency * (1.0 if i in best else 1e-8)
                for p, c, i in zip(pos, conf, ids, strict=True)
            ]  # fmt: skip
            if how.loss == "softmax":
                terms = (-scores[1:].log_softmax(0))[[i - 1 for i in ids]].tolist()
            else:
                terms = F.softplus(-scores[ids]).tolist()
            losses.append(sum(a * t for a, t in zip(w, terms, strict=True)) / sum(w))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("loss", ["bce", "softmax"])
@pytest.mark.parametrize("name", BACKBONES)
def test_a_batch_has_the_loss_of_its_positions(name, loss, rings, monkeypatch):
    # windows of 4 items: users with longer histories have windows that begin later
    split = rings.split.copy()
    split[rings.user_start[7]] = HISTORY  # a row that is known, and never a target
    data = dataclasses.replace(rings, split=split)
    table = random_rankings(data)
    how = dataclasses.replace(PART, loss=loss, weight=0.7)
    backbone = dataclasses.replace(BACKBONES[name], dropout=0.0)
    model = backbone.build(data, 0)
    hook = RankingHook(ranking_lists(table, data, how.k, "x"), how)
    # no negative: a draw that is the target does not count
    import llmers_pipelines.enhance.ranking_distillation_net as net

    monkeypatch.setattr(
        net, "ranking_bce",
        lambda positive, negative, weight, shifted: (weight * F.softplus(-positive)).sum(1),
    )  # fmt: skip
    begins = set()
    for batch in load_loader(backbone.loader)(data, backbone, 0).epoch(1):
        begins |= set(batch.begin.tolist())
        states = model.user_state(batch)
        found = float(hook.extra_loss(model, batch, states).detach())
        expected = 0.7 * float(batch.weight) * by_hand(model, batch, states, data, table, how)
        assert found == pytest.approx(expected, rel=1e-4)
    assert max(begins) >= 4
    assert int((data.split == TRAIN).sum()) > 0


def test_negatives_are_neither_taught_nor_the_target(rings, monkeypatch):
    table, how = random_rankings(rings), dataclasses.replace(PART, weight=1.0)
    model = BACKBONES["sasrec"].build(rings, 0)
    hook = RankingHook(ranking_lists(table, rings, 3, "x"), how)
    batch = next(load_loader("sequence")(rings, BACKBONES["sasrec"], 0).epoch(1))
    states = model.user_state(batch)
    real = batch.targets > 0
    targets = batch.targets[real]
    monkeypatch.setattr(torch, "randint", lambda *a, **k: targets)
    plain = float(hook.extra_loss(model, batch, states).detach())
    monkeypatch.setattr(torch, "randint", lambda *a, **k: targets % rings.n_items + 1)
    assert float(hook.extra_loss(model, batch, states).detach()) > plain + 0.3  # about ln 2 more


@pytest.mark.parametrize("name", BACKBONES)
def test_weight_0_is_the_backbone_bit_for_bit_and_weight_1_is_not(name, rings):
    inputs = {TAUGHT: random_rankings(rings)}
    base = fit(Train(BACKBONES[name], LOG), rings, {}, seed=1).export()[1]

    def with_weight(weight):
        aux = (dataclasses.replace(PART, weight=weight),)
        return fit(Train(BACKBONES[name], LOG, aux=aux), rings, inputs, seed=1).export()[1]

    off, on = with_weight(0.0), with_weight(1.0)
    assert set(off) == set(base)
    assert all(np.array_equal(off[k], base[k]) for k in base)
    assert not np.array_equal(on["item_table.weight"], base["item_table.weight"])


def test_a_student_of_the_true_successor_learns_it_sooner(rings):
    user, position = positions_of(rings)
    # the teacher names what really follows, the control something else
    true = rings.item[rings.user_start[user] + position][:, None]
    lists = {
        "true": true, "other": true % rings.n_items + 1,
    }  # fmt: skip
    valid = {}
    for kind, item in lists.items():
        table = to_table(rings, user, position, item, np.zeros(item.shape, np.float32))
        aux = (dataclasses.replace(PART, k=1, weight=2.0, loss="softmax"),)
        backbone = dataclasses.replace(
            BACKBONES["sasrec"], dropout=0.0, fit=dataclasses.replace(FIT, epochs=15)
        )
        valid[kind] = fit(Train(backbone, LOG, aux=aux), rings, {TAUGHT: table}, seed=0).best_valid
    assert valid["true"] > valid["other"] + 0.1


def test_wrong_settings_are_named():
    with pytest.raises(PlanError, match="needs `teacher`"):
        RankingDistillation()
    with pytest.raises(PlanError, match="loss is 'mse'"):
        RankingDistillation(TAUGHT, loss="mse")
    with pytest.raises(PlanError, match="k=0"):
        RankingDistillation(TAUGHT, k=0)
