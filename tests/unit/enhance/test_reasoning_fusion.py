from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.enhance.reasoning_fusion import ReasoningFusion
from llmers_pipelines.enhance.reasoning_fusion_net import fused
from llmers_pipelines.models.bert4rec import BERT4Rec
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.models.ranking_net import scoring_batch
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.models.served import fold
from llmers_pipelines.plan import PlanError, Table
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.arms import control_inputs
from llmers_pipelines.train.loop import load_loader

pytestmark = pytest.mark.proof("llmrg", "equations")

GRAPHS, TEXTS = Table("graphs"), Table("texts")
BACKBONE = SASRec(dim=8, inner=16, max_len=10, dropout=0.0, fit=Fit(batch=16, epochs=2))
CLOZE = BERT4Rec(dim=8, inner=16, max_len=10, dropout=0.0, fit=Fit(batch=16, epochs=2))


@pytest.fixture(scope="module")
def data():
    return planted_rings(n_users=30, n_items=20).data


def row(data, user, number, cut, nodes, edges, kind="original"):
    names = [n if isinstance(n, str) else f"item:{data.items.ids[n - 1]}" for n in nodes]
    return {"user_id": data.users.ids[user - 1], "round": number, "cut": cut, "kind": kind,
            "nodes": names, "sources": [a for a, _ in edges],
            "targets": [b for _, b in edges]}  # fmt: skip


def texts():
    vectors = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
    return VectorTable("text", ("x", "y", "z"), vectors, np.array([True, True, False]))


def attached(data, rows, backbone=BACKBONE, **settings):
    model = backbone.build(data, 0)
    part = ReasoningFusion(GRAPHS, TEXTS, **settings)
    attach_parts(model, (part,), data, {GRAPHS: pa.Table.from_pylist(rows), TEXTS: texts()}, 0)
    return model, model.hooks[0]


def some(data):
    """User 1: chain A-B-C and A-D; user 2 with a text and a divergent graph."""
    return [
        row(data, 1, 1, 2, [1, 2], [(0, 1)]),
        row(data, 1, 2, 4, [1, 2, 3, 4], [(0, 1), (1, 2), (0, 3)]),
        row(data, 2, 1, 3, ["text:x", 5, 6], [(1, 0), (0, 2)]),
        row(data, 2, 1, 3, [7, "text:y", 6], [(2, 0), (2, 1)], kind="divergent"),
    ]


def test_matrices_of_the_chain_a_b_c_and_a_d(data):
    _, hook = attached(data, some(data))
    reader = hook.readers["original"]
    out, into = reader.edges(reader.of[1, 1][None])
    assert out[0].tolist() == [[0, 0.5, 0, 0.5], [0, 0, 1, 0], [0] * 4, [0] * 4]
    assert into[0].tolist() == [[0] * 4, [1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]]
    short, _ = reader.edges(reader.of[1, 0][None])  # right aligned: places 2 and 3
    assert short[0, 2].tolist() == [0, 0, 0, 1] and torch.isfinite(short).all()


def test_the_readout_is_the_equations_computed_by_hand(data):
    model, hook = attached(data, some(data))
    reader = hook.readers["original"]
    found = hook.read(model, torch.tensor([2]), None)[0][0]
    h = torch.stack([
        hook.text(hook.texts[0]), model.item_table.weight[5], model.item_table.weight[6],
    ])  # fmt: skip
    a_out = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 0, 0]])
    a_in = torch.tensor([[0.0, 1, 0], [0, 0, 0], [1, 0, 0]])
    # [A_out E W_o ; A_in E W_i] + b, with the biases inside of the linear maps of SR-GNN
    a = torch.cat([a_in @ reader.message_in(h), a_out @ reader.message_out(h)], 1)
    h = reader.cell(a, h)
    weight = torch.sigmoid(reader.last(h[-1]) + reader.each(h)) @ reader.query.weight.T
    expected = torch.cat([h[-1], (weight * h).sum(0)]) @ reader.out.weight.T
    torch.testing.assert_close(found, expected)


def test_fusion_that_starts_at_identity_is_the_backbone(data):
    model, hook = attached(data, some(data))
    assert torch.equal(hook.fusion[:8], torch.eye(8)) and not hook.fusion[8:].any()
    plain = BACKBONE.build(data, 0)
    batch = next(load_loader("sequence")(data, BACKBONE, 0).epoch(1))
    torch.testing.assert_close(model.loss(batch), plain.loss(batch), rtol=0, atol=1e-6)
    model.loss(batch).backward()
    assert hook.fusion.grad[8:].abs().sum() > 0, "the graphs must be able to matter"


def test_fusion_is_concat_and_one_matrix_also_for_several_interests():
    state, one, two = torch.randn(3, 4), torch.randn(3, 2), torch.randn(3, 2)
    weight = torch.randn(8, 4)
    expected = torch.cat([state, one, two], 1) @ weight
    torch.testing.assert_close(fused(state, [one, two], weight), expected)
    both = fused(torch.cat([state, 2 * state], 1), [one, two], weight)
    torch.testing.assert_close(both[:, :4], expected)
    torch.testing.assert_close(both[:, 4:], torch.cat([2 * state, one, two], 1) @ weight)


@pytest.mark.parametrize("backbone", [BACKBONE, CLOZE], ids=["sasrec", "bert4rec"])
def test_a_state_sees_no_graph_of_its_own_future(data, backbone):
    """What a graph of cut c changes are states with at least c rows before them."""
    train = [n for n in range(1, data.n_users + 1) if (data.split[data.user == n] == 0).sum() > 5]
    user = train[0]
    model, hook = attached(data, [row(data, user, 1, 3, [1, 2], [(0, 1)])], backbone)
    with torch.no_grad():
        hook.fusion[hook.fusion.shape[1] :] = 1.0
    loader = load_loader(backbone.loader)(data, backbone, 0)
    batch = next(b for b in loader.epoch(1) if (b.user == user).any())
    at = int((batch.user == user).nonzero()[0])
    model.eval()
    with torch.no_grad():
        fused_states = model.user_state(batch)[at]
        hook.fusion[hook.fusion.shape[1] :] = 0.0
        plain = model.user_state(batch)[at]
    moved = ((fused_states - plain).abs().sum(-1) > 1e-6)[batch.items[at] > 0]
    assert moved.tolist() == [p >= 3 for p in range(int(batch.begin[at]), len(moved))]


def test_the_newest_round_that_is_over_counts(data):
    model, hook = attached(data, some(data))
    reader = hook.readers["original"]
    before = torch.tensor([[1, 2, 3, 4, 9]])
    found = hook.read(model, torch.tensor([1]), before)[0][0]
    first, second = (reader(reader.of[1, r][None], lambda n: hook.vectors(model, n))[0]
                     for r in (0, 1))  # fmt: skip
    for got, expected in zip(found, (reader.default, first, first, second, second), strict=True):
        torch.testing.assert_close(got, expected)


def test_no_graph_at_all_is_the_default_vector(data):
    """A threshold above every score leaves empty graphs."""
    model, hook = attached(data, some(data)[:1])
    found = hook.read(model, torch.tensor([0, 5]), None)
    for kind, part in zip(("original", "divergent"), found, strict=True):
        default = hook.readers[kind].default
        torch.testing.assert_close(part, default.expand(2, -1))
    model, hook = attached(data, [row(data, 3, 1, 2, [], [])])
    assert torch.isfinite(hook.read(model, torch.tensor([3]), None)[0]).all()


def test_what_is_served_is_what_was_trained(data):
    model, hook = attached(data, some(data))
    with torch.no_grad():
        hook.fusion += 0.1
        hook.readers["original"].default += 0.5
    model.eval()
    histories = [np.array([1, 2, 3]), np.array([4, 4, 7]), np.array([5, 6])]
    batch = scoring_batch(np.array([1, 2, 0]), histories, 10, torch.device("cpu"))
    with torch.no_grad():
        expected = model.score(model.user_state(batch))
        served = fold(model)
        torch.testing.assert_close(served.score(served.user_state(batch)), expected)


def test_nodes_without_a_row_are_named_and_foreign_users_left_out(data):
    bad = row(data, 1, 1, 2, ["text:q", 2], [(0, 1)])
    with pytest.raises(ValueError, match="node 'text:q', which catalog/texts has no row for"):
        attached(data, [bad])
    stranger = {**some(data)[0], "user_id": "nobody"}
    _, hook = attached(data, [stranger, *some(data)[2:]])
    assert len(hook.readers["original"].node) == 2


def test_controls_deal_graphs_to_others_or_draw_their_nodes(data):
    table = pa.Table.from_pylist(some(data))
    given = {GRAPHS: table, TEXTS: texts()}
    dealt = control_inputs(given, "permuted", seed=1)
    rows = dealt[GRAPHS].to_pylist()
    old = {r["user_id"]: r["nodes"] for r in table.to_pylist()}
    assert all(old.get(r["user_id"]) != r["nodes"] for r in rows)
    assert dealt[TEXTS].entity == "text" and set(dealt[TEXTS].ids) == {"x", "y", "z"}
    drawn = control_inputs(given, "gaussian", seed=1)[GRAPHS].to_pylist()
    for one, two in zip(table.to_pylist(), drawn, strict=True):
        assert one["sources"] == two["sources"] and len(one["nodes"]) == len(set(two["nodes"]))
        assert one["user_id"] == two["user_id"]


@pytest.mark.parametrize("settings", [{"graphs": None}, {"steps": 0}, {"strength": -1.0}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(PlanError, match="ReasoningFusion"):
        ReasoningFusion(**{"graphs": GRAPHS, "texts": TEXTS, **settings})
