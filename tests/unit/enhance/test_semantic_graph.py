from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional as F

from llmers_pipelines.data.training import IdMap
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.enhance.semantic_graph import SemanticGraph
from llmers_pipelines.enhance.semantic_graph_net import SemanticGraphHook, neighbour_table
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.hgcf import HGCF
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.models.ranking_net import scoring_batch
from llmers_pipelines.models.served import fold
from llmers_pipelines.plan import PlanError, Table, Train
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.loop import fit, load_loader

pytestmark = pytest.mark.proof("colakg", "equations")

ITEM, USER, NEAR = Table("item_text"), Table("user_text"), Table("near")
BACKBONE = LightGCN(dim=8, layers=2, loss="bpr", fit=Fit(lr=1e-2, batch=16, epochs=2))


@pytest.fixture(scope="module")
def data():
    return planted_rings(n_users=30, n_items=20).data


def vectors(entity, ids, every=5, width=6):
    rows = np.random.default_rng(len(ids)).standard_normal((len(ids), width)).astype(np.float32)
    return VectorTable(entity, ids.ids, rows, np.arange(len(ids)) % every > 0)


def near(ids, k=3, lacking=()):
    rows = [(own, r + 1, ids[(n + r + 1) % len(ids)]) for n, own in enumerate(ids)
            for r in range(k) if own not in lacking]  # fmt: skip
    own, rank, other = zip(*rows, strict=True)
    return pa.table({"item_id": own, "rank": rank, "other_id": other})


def attached(data, lacking=(), **settings):
    model = BACKBONE.build(data, 0)
    part = SemanticGraph(ITEM, USER, NEAR, **settings)
    given = {ITEM: vectors("item", data.items), USER: vectors("user", data.users),
             NEAR: near(data.items.ids, lacking=lacking)}  # fmt: skip
    attach_parts(model, (part,), data, given, 0)
    return model, model.hooks[0]


def hand_hook(item_vectors, neighbours, **settings):
    made = {"dim": 2, "attention": 4, "dropout": 0.0, "l2": 0.0, "strength": 1.0} | settings
    return SemanticGraphHook({"item": item_vectors}, neighbours, **made)


def test_golden_case_of_the_second_merge():
    """h_i = (2, 0) and a neighbour sum of (4, -1): h' = (3, -0.3161)."""
    hook = hand_hook(torch.zeros(3, 3), torch.tensor([[0], [2], [0]])).eval()
    # Without text s' = 0, so h = e / 2: twice the wanted h goes in.
    items = torch.tensor([[0.0, 0.0], [4.0, 0.0], [8.0, -2.0]])
    model = type("Model", (), {"config": {"n_users": 1}})()
    out = hook.graph_input(model, lambda: torch.cat([torch.zeros(2, 2), items]))[2:]
    assert out[1].tolist() == pytest.approx([3.0, (np.exp(-1.0) - 1) / 2], abs=1e-6)
    assert out[1, 1].item() == pytest.approx(-0.3161, abs=1e-4)
    assert out[2].tolist() == [4.0, -1.0]  # no neighbour: h_i stays
    assert out[0].tolist() == [0.0, 0.0]


def test_equal_texts_give_equal_attention_and_padding_none():
    same = torch.ones(5, 3)
    hook = hand_hook(same, torch.tensor([[0, 0, 0], [2, 3, 4], [1, 3, 0], [0, 0, 0], [1, 0, 0]]))
    alpha = hook.alpha(same)
    torch.testing.assert_close(alpha[1], torch.full((3,), 1 / 3))
    torch.testing.assert_close(alpha[2], torch.tensor([0.5, 0.5, 0.0]))
    assert alpha[0].tolist() == alpha[3].tolist() == [0.0, 0.0, 0.0]


def test_attention_and_merges_are_those_of_a_loop_over_items(data):
    model, hook = attached(data, lacking=(data.items.ids[2],))
    model.eval()
    out = model.start().detach()
    users, items = out.tensor_split([data.n_users + 1])
    w_user, w_item = hook.project["user"].weight.T, hook.project["item"].weight.T
    own_users = (model.user_table.weight + F.elu(hook.vectors("user") @ w_user)) / 2
    torch.testing.assert_close(users, own_users.detach())
    h = (model.item_table.weight + F.elu(hook.vectors("item") @ w_item)) / 2
    s, key = hook.vectors("item"), hook.key.weight.T
    for i in range(1, data.n_items + 1):
        around = [int(j) for j in hook.near[i] if j]
        if not around:
            assert data.items.ids[i - 1] == data.items.ids[2]
            torch.testing.assert_close(items[i], h[i].detach())
            continue
        pairs = [hook.query @ torch.cat([s[j] @ key, s[i] @ key]) for j in around]
        weight = torch.softmax(F.leaky_relu(torch.stack(pairs), 0.2), 0)
        total = sum(a * h[j] for a, j in zip(weight, around, strict=True))
        torch.testing.assert_close(items[i], ((h[i] + F.elu(total)) / 2).detach())


def test_without_both_merges_it_is_lightgcn_and_zeroed_texts_are_not_enough(data):
    plain = BACKBONE.build(data, 0).eval()
    off, _ = attached(data, strength=0.0, l2=0.0)
    torch.testing.assert_close(off.eval().start(), plain.start(), rtol=0, atol=0)
    zeroed, hook = attached(data)
    with torch.no_grad():
        hook.project["item"].weight.zero_(), hook.project["user"].weight.zero_()
    zeroed.eval()
    shrunk = zeroed.start()[1 : data.n_users + 1]
    torch.testing.assert_close(shrunk, plain.start()[1 : data.n_users + 1] / 2)


def test_the_released_form_has_elu_on_the_sum_alone():
    """The slide's ELU around the mean would give ((2 - 3) / 2) -> exp(-.5) - 1 here."""
    hook = hand_hook(torch.zeros(3, 3), torch.tensor([[0], [2], [0]])).eval()
    items = torch.tensor([[0.0, 0.0], [4.0, 4.0], [-6.0, -6.0]])
    model = type("Model", (), {"config": {"n_users": 0}})()
    out = hook.graph_input(model, lambda: torch.cat([torch.zeros(1, 2), items]))[1:]
    assert out[1, 0].item() == pytest.approx((2 + np.expm1(-3)) / 2)
    assert out[1, 0].item() != pytest.approx(np.expm1(-0.5))


def test_penalty_is_of_the_projected_rows_of_the_batch(data):
    model, hook = attached(data, l2=0.5)
    batch = next(load_loader("pair")(data, BACKBONE, 0).epoch(1))
    rows = [("user", batch.user), ("item", batch.positive)]
    norms = [F.elu(hook.project[s](hook.vectors(s)[i])).square().sum(1).mean() for s, i in rows]
    torch.testing.assert_close(hook.extra_loss(model, batch, None), 0.25 * (norms[0] + norms[1]))


def test_dropout_works_in_training_alone_and_on_its_own_stream(data):
    model, _ = attached(data, dropout=0.5)
    model.train()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, two = model.start(), model.start()
    assert not torch.equal(one, two) and torch.equal(before, torch.get_rng_state())
    model.eval()
    torch.testing.assert_close(model.start(), model.start(), rtol=0, atol=0)


def test_self_and_foreign_items_are_never_neighbours():
    ids = IdMap(("a", "b", "c"))
    table = pa.table({"item_id": ["a", "a", "a", "x", "b"], "rank": [2, 1, 3, 1, 1],
                      "other_id": ["b", "a", "c", "a", "zz"]})  # fmt: skip
    assert neighbour_table(table, ids, "near").tolist() == [[0, 0], [2, 3], [0, 0], [0, 0]]
    with pytest.raises(ValueError, match="none of 1 rows joins two items"):
        neighbour_table(table.slice(4), ids, "near")


def test_what_is_served_is_plain_tables(data):
    model, _ = attached(data)
    model.eval()
    histories = [np.array([1, 2, 3]), np.array([4]), np.array([5, 6])]
    batch = scoring_batch(np.array([1, 2, 0]), histories, None, torch.device("cpu"))
    with torch.no_grad():
        expected = model.score(model.user_state(batch))
        served = fold(model)
        assert len(served.hooks) == 0
        torch.testing.assert_close(served.score(served.user_state(batch)), expected)


@pytest.mark.parametrize(
    "settings", [{"dropout": 1.0}, {"strength": 1.5}, {"attention": 0}, {"neighbours": None}]
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(PlanError, match="SemanticGraph"):
        SemanticGraph(**{"items": ITEM, "neighbours": NEAR, **settings})


def test_on_points_it_learns_at_an_ordinary_rate(data):
    """The default rate of HGCF, 10, is one of Riemannian steps; AdamW would go 10 per step."""
    how = Fit(lr=10.0, batch=32, epochs=12, min_epochs=12, weight_decay=3e-6)
    backbone = HGCF(dim=8, layers=2, fit=how)
    given = {ITEM: vectors("item", data.items), USER: vectors("user", data.users),
             NEAR: near(data.items.ids)}  # fmt: skip
    node = Train(backbone, Table("splits", task="collaborative"),
                 fuse=(SemanticGraph(ITEM, USER, NEAR, dropout=0.0),))  # fmt: skip
    model = backbone.build(data, 0)
    attach_parts(model, node.fuse, data, given, 0)
    start = {name: p.detach().clone() for name, p in model.hooks[0].named_parameters()}
    seen = []
    trained = fit(node, data, given, seed=0, progress=lambda record: seen.append(record))
    for name, before in start.items():
        gone = np.abs(trained.state[f"hooks.0.{name}"] - before.numpy()).max()
        assert np.isfinite(gone) and 0 < gone < 0.2, name
    assert len(seen) == 12 and seen[-1]["train_loss"] < seen[0]["train_loss"]
    assert seen[-1]["valid"] > 0.8 * max(r["valid"] for r in seen)
