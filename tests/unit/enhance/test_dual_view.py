from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from llmers_pipelines.data.training import TEST
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.enhance.dual_view import DualView
from llmers_pipelines.enhance.dual_view_net import CrossAttention
from llmers_pipelines.models.batches import SequenceBatch
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.histories import history_before
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.models.seams import check_seams
from llmers_pipelines.models.served import fold, load_served
from llmers_pipelines.plan import PlanError, Table, Train
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.loop import fit, load_loader, run_epochs

pytestmark = pytest.mark.proof("llm_esr", "equations")

ITEMS, LOG = Table("items"), Table("splits", task="sequential")
BACKBONE = SASRec(dim=8, inner=16, max_len=8, fit=Fit(lr=3e-3, batch=16, epochs=2))
PART = DualView(ITEMS, heads=2, dropout=0.2)


@pytest.fixture(scope="module")
def rings():
    return planted_rings(n_users=30, n_items=20, width=12)


def attached(rings, part=PART, backbone=BACKBONE):
    model = backbone.build(rings.data, 0)
    attach_parts(model, (part,), rings.data, {ITEMS: rings.items}, 0)
    return model


def batch(rows):
    items = torch.tensor(rows)
    return SequenceBatch(torch.ones(len(rows), dtype=torch.int64), items)


def test_items_are_id_and_adapted_text_side_by_side(rings):
    model = attached(rings)
    hook = model.hooks[0]
    z = torch.from_numpy(rings.items.aligned(rings.data.items)[0])
    with torch.no_grad():
        hook.down1.bias.normal_()
        hook.down2.bias.normal_()
        adapted = hook.down2(hook.down1(z))
    found = model.item_output().detach()
    torch.testing.assert_close(found, torch.cat([model.item_table.weight.detach(), adapted], 1))
    ids = torch.tensor([[3, 1]])
    torch.testing.assert_close(model.item_output(ids).detach(), found[ids])


def test_the_semantic_view_starts_at_the_scale_of_the_table(rings):
    model = attached(rings)
    semantic = model.hooks[0].semantic(None)[1:].detach()
    assert float(semantic.std()) == pytest.approx(float(model.item_table.weight[1:].detach().std()))


def test_a_later_item_never_changes_an_earlier_state(rings):
    model = attached(rings).eval()
    a = model.hidden_states(batch([[3, 5, 7, 9, 11]]))
    b = model.hidden_states(batch([[3, 5, 7, 2, 11]]))
    assert a.shape == (1, 5, 16)
    assert torch.equal(a[:, :3], b[:, :3])
    assert not torch.allclose(a[:, 3, :8], b[:, 3, :8])
    assert not torch.allclose(a[:, 3, 8:], b[:, 3, 8:])


def test_left_padding_changes_nothing(rings):
    model = attached(rings).eval()
    short = model.user_state(batch([[3, 5, 7]]))
    long = model.user_state(batch([[0, 0, 3, 5, 7], [1, 2, 3, 4, 5]]))
    torch.testing.assert_close(long[:1], short)


def test_both_views_go_through_one_shared_encoder(rings):
    model = attached(rings).eval()
    states = model.hidden_states(batch([[3, 5, 7]]))
    hook, mask = model.hooks[0], torch.ones(1, 3, dtype=torch.bool)
    allowed = mask.new_ones(1, 1, 3, 3).tril()
    items = torch.tensor([[3, 5, 7]])
    ids, text = model.item_input(items), hook.semantic(items)
    first = model.encode(hook.id_from_text(ids, text, allowed), mask)
    second = model.encode(hook.text_from_id(text, ids, allowed), mask)
    torch.testing.assert_close(states, torch.cat([first, second], -1))


def test_cross_attention_equals_the_fused_kernel():
    torch.manual_seed(0)
    attention = CrossAttention(8, 2, 0.0)
    x, other = torch.randn(2, 3, 5, 8)
    allowed = torch.ones(5, 5, dtype=torch.bool).tril()
    q = attention.query(x).view(3, 5, 2, 4).transpose(1, 2)
    k, v = attention.key_value(other).view(3, 5, 2, 2, 4).permute(2, 0, 3, 1, 4)
    fused = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    expected = attention.out(fused.transpose(1, 2).reshape(3, 5, 8))
    torch.testing.assert_close(attention(x, other, allowed), expected)


def test_vectors_are_frozen_and_everything_else_learns(rings):
    model = attached(rings)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    raw = model.hooks[0].vectors.clone()
    run_epochs(model, load_loader("sequence")(rings.data, BACKBONE, 0), BACKBONE.fit, "test")
    assert torch.equal(model.hooks[0].vectors, raw)
    assert "hooks.0.vectors" not in before  # no copy of them in checkpoints either
    still = [k for k, v in model.state_dict().items() if torch.equal(v, before[k])]
    assert still == []


def test_folding_serves_plain_tables_without_the_vectors(rings):
    model = attached(rings).eval()
    served = fold(model)
    given = batch([[0, 5, 7], [1, 2, 3]])
    torch.testing.assert_close(
        served.score(served.user_state(given)), model.score(model.user_state(given)).detach()
    )
    assert served.output_table.shape == (21, 16)
    assert all(v.shape[-1] != 12 for v in served.state_dict().values())  # 12 = width of the text


def test_trained_and_served_scores_agree(rings):
    trained = fit(Train(BACKBONE, LOG, fuse=(PART,)), rings.data, {ITEMS: rings.items}, seed=0)
    users = np.arange(1, 31)
    lists = history_before(rings.data, TEST).lists(users)
    served = load_served(*trained.export())
    assert np.array_equal(trained.scores(users, lists), served.scores(users, lists))
    assert np.array_equal(fold(served.net).output_table, served.net.output_table)


def test_items_without_a_vector_share_the_mean(rings):
    table = rings.items
    mask = table.mask.copy()
    mask[4] = False
    model = BACKBONE.build(rings.data, 0)
    given = VectorTable("item", table.ids, table.vectors, mask)
    attach_parts(model, (PART,), rings.data, {ITEMS: given}, 0)
    vectors = model.hooks[0].vectors
    np.testing.assert_allclose(vectors[5], table.vectors[mask].mean(0), rtol=1e-5)
    assert not vectors[0].any()


def test_mistakes_are_named(rings):
    with pytest.raises(PlanError, match="DualView needs the seam 'hidden_states'"):
        check_seams(LightGCN(), (PART,), "x")
    with pytest.raises(PlanError, match="DualView needs `source`"):
        DualView()
    with pytest.raises(ValueError, match="width 8 is not a multiple of 3 cross-attention heads"):
        attached(rings, dataclasses.replace(PART, heads=3))
    users = VectorTable("user", ("u1",), np.ones((1, 12), np.float32), np.ones(1, bool))
    with pytest.raises(ValueError, match="vectors of users, expected vectors of items"):
        attach_parts(BACKBONE.build(rings.data, 0), (PART,), rings.data, {ITEMS: users}, 0)


@pytest.mark.parametrize("inert", [True, False])
def test_an_empty_text_view_leaves_the_backbone_alone(rings, inert):
    """The method has no gate: inert is a text view that is held at zero, beside a residual.

    Its attention still drops weights at random, from a stream of its own. The backbone's dropout is
    off, since its encoder reads both views and draws for both.
    """
    backbone = dataclasses.replace(BACKBONE, dropout=0.0)
    part = dataclasses.replace(PART, residual=True)
    base, model = backbone.build(rings.data, 0), attached(rings, part, backbone)
    hook = model.hooks[0]
    if inert:
        with torch.no_grad():
            hook.vectors.zero_()
            for held in (hook.down1, hook.down2, hook.id_from_text.out, hook.text_from_id.out):
                for value in held.parameters():
                    value.zero_().requires_grad_(False)
    losses = []
    for net in (base, model):
        loader = load_loader("sequence")(rings.data, backbone, 0)
        # not Adam: it blows up the rounding of a gradient that is zero, as a key's bias has
        optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.5)
        torch.manual_seed(3)
        batches = (b for number in range(1, 99) for b in loader.epoch(number))
        losses.append([])
        for _, rows in zip(range(20), batches, strict=False):
            optimizer.zero_grad()
            loss = net.loss(rows)
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    assert np.allclose(*losses, rtol=0, atol=1e-6) == inert
    if inert:
        for name, value in base.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=1e-6)
