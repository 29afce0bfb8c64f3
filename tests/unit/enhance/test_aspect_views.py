from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch

from llmers_pipelines.data.training import TEST, TRAIN, IdMap, TrainingData
from llmers_pipelines.enhance.aspect_views import AspectViews
from llmers_pipelines.enhance.aspect_views_net import AspectViewsHook, aspect_graphs
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.graph_net import Graph
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.models.ranking_net import scoring_batch
from llmers_pipelines.models.served import fold
from llmers_pipelines.plan import PlanError, Table
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.arms import control_inputs
from llmers_pipelines.train.loop import load_loader

pytestmark = pytest.mark.proof("sagcn", "equations")

EDGES = Table("edges")
BACKBONE = LightGCN(dim=8, layers=2, loss="bpr", fit=Fit(lr=1e-2, batch=16, epochs=2))


@pytest.fixture(scope="module")
def data():
    return planted_rings(n_users=30, n_items=20).data


def pairs(data):
    rows = data.split == TRAIN
    ids = zip(data.user[rows], data.item[rows], strict=True)
    return sorted({(data.users.ids[u - 1], data.items.ids[i - 1]) for u, i in ids})


def edges(rows):
    user, item, aspect = zip(*rows, strict=True)
    return pa.table({"user_id": user, "item_id": item, "aspect": aspect})


def halves(data):
    """Each pair speaks of price or size, every third of both."""
    rows = []
    for n, pair in enumerate(pairs(data)):
        rows += [(*pair, "price")] * (n % 3 != 1) + [(*pair, "size")] * (n % 3 != 0)
    return edges(rows)


def attached(data, table, **settings):
    model = BACKBONE.build(data, 0)
    part = AspectViews(EDGES, **{"layers": 2, **settings})
    attach_parts(model, (part,), data, {EDGES: table}, 0)
    return model, model.hooks[0]


def test_golden_case_of_two_aspects():
    """One edge, E_u = 1, E_i = 2: both 1.5, score 2.25; an aspect where they are alone adds .5."""
    made = {"n_users": 1, "n_items": 1, "dim": 1, "std": 1.0, "layers": 1, "how": "concat",
            "implicit": False, "l2": 0.0, "strength": 1.0}  # fmt: skip
    one, none = np.array([1]), np.array([], np.int64)
    graphs = {"price": Graph(one, one, 1, 1), "size": Graph(none, none, 1, 1)}
    hook = AspectViewsHook(graphs, **made)
    with torch.no_grad():
        for table in hook.tables:
            table.copy_(torch.tensor([[0.0], [1.0], [0.0], [2.0]]))
    users, items = hook.views(type("Model", (), {"_vectors": None})())
    assert (users[0][1].item(), items[0][1].item()) == (1.5, 1.5)
    assert (users[0][1] * items[0][1]).item() == 2.25
    assert (users[1][1].item(), items[1][1].item()) == (0.5, 1.0)
    both = torch.cat([u[1] for u in users]) @ torch.cat([i[1] for i in items])
    assert both.item() == 2.75


def test_one_aspect_of_all_training_edges_is_lightgcn(data):
    table = edges([(*p, "all") for p in pairs(data)])
    model, hook = attached(data, table, implicit=False, l2=0.0)
    with torch.no_grad():
        hook.tables[0].copy_(torch.cat([model.user_table.weight, model.item_table.weight]))
    plain = BACKBONE.build(data, 0)
    batch = next(load_loader("pair")(data, BACKBONE, 0).epoch(1))
    plain.l2 = model.l2 = 0.0
    torch.testing.assert_close(model.loss(batch), plain.loss(batch))
    stranger = scoring_batch(np.array([0, 3]), [np.array([1, 2]), np.array([], np.int64)], None,
                             torch.device("cpu"))  # fmt: skip
    model.eval(), plain.eval()
    with torch.no_grad():  # a stranger's history is scored by the same rule
        torch.testing.assert_close(model.user_state(stranger)[0], plain.user_state(stranger)[0])
        torch.testing.assert_close(model.item_output(), plain.item_output())


def test_an_isolated_pair_is_its_own_start_divided(data):
    table = halves(data)
    price = table.filter(pa.compute.equal(table["aspect"], "price"))
    _, hook = attached(data, price, layers=3)
    lonely = np.flatnonzero(hook.graphs[0].degree.numpy() == 0)
    view = torch.cat(hook.views(type("Model", (), {"_vectors": None})())[0]).detach()
    users = [n for n in lonely if 0 < n <= data.n_users]
    for n in users:
        torch.testing.assert_close(view[n], hook.tables[0][n].detach() / 4)


@pytest.mark.parametrize("how", ["concat", "sum", "mean"])
@pytest.mark.parametrize("implicit", [True, False])
def test_what_is_served_is_what_was_trained(data, how, implicit):
    model, _ = attached(data, halves(data), how=how, implicit=implicit)
    model.eval()
    histories = [np.array([1, 2, 3]), np.array([4, 4, 7]), np.array([5, 6])]
    batch = scoring_batch(np.array([1, 2, 0]), histories, None, torch.device("cpu"))
    with torch.no_grad():
        expected = model.score(model.user_state(batch))
        served = fold(model)
        torch.testing.assert_close(served.score(served.user_state(batch)), expected)


def test_joining_is_side_by_side_or_a_sum_or_a_mean(data):
    outs = {}
    for how in ("concat", "sum", "mean"):
        model, hook = attached(data, halves(data), how=how)
        model.eval()
        with torch.no_grad():
            outs[how] = model.item_output()
            own, views = model._item_output(None), hook.views(model)[1]
    torch.testing.assert_close(outs["concat"], torch.cat([own, *views], 1))
    torch.testing.assert_close(outs["sum"], own + views[0] + views[1])
    torch.testing.assert_close(outs["mean"], outs["sum"] / 3)


def test_penalty_is_of_the_first_layer_of_every_aspect(data):
    model, hook = attached(data, halves(data), l2=0.5)
    batch = next(load_loader("pair")(data, BACKBONE, 0).epoch(1))
    total = 0.0
    for table in hook.tables:
        users, items = table.tensor_split([data.n_users + 1])
        for rows in (users[batch.user], items[batch.positive], items[batch.negative[:, 0]]):
            total = total + rows.square().sum()
    found = hook.extra_loss(model, batch, None)
    torch.testing.assert_close(found, 0.25 * total / len(batch.user))


def test_edges_that_are_no_training_rows_are_refused(data):
    held = data.split == TEST
    user, item = data.users.ids[data.user[held][0] - 1], data.items.ids[data.item[held][0] - 1]
    table = edges([(*pairs(data)[0], "a"), (user, item, "a")])
    with pytest.raises(ValueError, match=r"edges, row 1: .* is no training row"):
        aspect_graphs(table, data, "edges")
    with pytest.raises(ValueError, match="there is no edge"):
        aspect_graphs(table.slice(2), data, "edges")


def test_an_edge_that_is_named_twice_counts_once():
    data = TrainingData(
        "collaborative", IdMap(("u",)), IdMap(("a", "b")), np.array([1, 1]), np.array([1, 2]),
        np.arange(2), np.array([TRAIN, TRAIN], np.int8),
    )  # fmt: skip
    graphs = aspect_graphs(edges([("u", "a", "x"), ("u", "a", "x"), ("u", "b", "y")]), data, "e")
    assert list(graphs) == ["x", "y"] and graphs["x"].degree.tolist() == [0, 1, 0, 1, 0]


def test_controls_keep_the_edges_of_each_aspect_and_lose_their_tie(data):
    table = halves(data)
    labels = {}
    for u, i, a in zip(*(table[c].to_pylist() for c in table.column_names), strict=True):
        labels.setdefault((u, i), set()).add(a)
    for arm in ("permuted", "gaussian"):
        drawn = control_inputs({EDGES: table}, arm, seed=3)[EDGES]
        assert sorted(drawn["aspect"].to_pylist()) == sorted(table["aspect"].to_pylist())
        found = {}
        for u, i, a in zip(*(drawn[c].to_pylist() for c in drawn.column_names), strict=True):
            assert a not in found.setdefault((u, i), set()) and (u, i) in labels
            found[u, i].add(a)
        assert found != labels
        again = control_inputs({EDGES: table}, arm, seed=3)[EDGES]
        assert drawn.equals(again)
        if arm == "permuted":  # whole sets of labels move
            assert sorted(map(sorted, found.values())) == sorted(map(sorted, labels.values()))
        aspect_graphs(drawn, data, "edges")


@pytest.mark.parametrize("settings", [{"how": "max"}, {"layers": -1}, {"edges": None}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(PlanError, match="AspectViews"):
        AspectViews(**{"edges": EDGES, **settings})


def test_views_of_another_width_cannot_be_summed(data):
    with pytest.raises(ValueError, match="can be summed"):
        attached(data, halves(data), how="sum", dim=4)
    wide = dataclasses.replace(BACKBONE, loss="ssm", negatives=4)
    assert wide.dim == 8


@pytest.mark.parametrize("how", ["concat", "sum", "mean"])
def test_a_user_without_training_rows_has_the_views_of_an_unknown_one(data, how):
    split = np.where((data.user > 28) & (data.split == TRAIN), TEST, data.split).astype(np.int8)
    late = dataclasses.replace(data, split=split)
    model, hook = attached(late, halves(late), how=how)
    batch = scoring_batch(np.array([30, 0, 1]), [late.item[late.user == 30]] * 3, None)
    for net in (model.eval(), fold(model)):
        with torch.no_grad():
            states = net.user_state(batch)
        assert torch.equal(states[0], states[1]) and not torch.allclose(states[0], states[2])
    assert all(bool(table[1:29].any(1).all()) for table in hook.tables)
