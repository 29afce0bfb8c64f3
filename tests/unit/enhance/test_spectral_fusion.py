"""Texts and ids of a history joined by spectra; legal only where the last state is trained."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from llmers_pipelines.config import Method
from llmers_pipelines.data.training import TRAIN
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.enhance.positionwise_experts_net import PositionwiseExperts, placed
from llmers_pipelines.enhance.spectral_fusion import SpectralFusion
from llmers_pipelines.enhance.spectral_fusion_net import (
    Spectrum,
    from_the_first,
    spectral_product,
)
from llmers_pipelines.models.batches import SequenceBatch
from llmers_pipelines.models.bert4rec import BERT4Rec
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.gru4rec import GRU4Rec
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.models.seams import check_seams
from llmers_pipelines.models.served import fold
from llmers_pipelines.orchestrate.build import instantiate
from llmers_pipelines.plan import PlanError, Table, Train
from llmers_pipelines.recipe import discover
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.loop import fit
from llmers_pipelines.train.sequence_loader import Loader

pytestmark = pytest.mark.proof("tedrec", "equations")
LOG, ITEMS = Table("splits", task="sequential"), Table("items")
LAST = SASRec(
    dim=8, inner=16, max_len=6, dropout=0.0, supervise="last", head="cosine",
    fit=Fit(lr=3e-3, batch=16, epochs=2, min_epochs=1),
)  # fmt: skip
PART = SpectralFusion(source=ITEMS, experts=3)


@pytest.fixture(scope="module")
def rings():
    return planted_rings(n_users=20, n_items=20, length=(4, 9), seed=2)


def column(*values):
    return torch.tensor(values)[None, :, None]


def test_the_product_is_a_circular_convolution_over_the_root_of_the_length():
    x = column(1.0, 2.0, 3.0, 4.0)
    zero, one = column(1.0, 0.0, 0.0, 0.0), column(0.0, 1.0, 0.0, 0.0)
    torch.testing.assert_close(spectral_product(x, zero), column(0.5, 1.0, 1.5, 2.0))
    # wrap-around: what stood last comes first
    torch.testing.assert_close(spectral_product(x, one), column(2.0, 0.5, 1.0, 1.5))
    x, y = torch.randn(2, 7, 3), torch.randn(2, 7, 3)  # against the sum itself, an odd length
    by_hand = torch.stack([sum(x[:, k] * y[:, (t - k) % 7] for k in range(7)) for t in range(7)], 1)
    torch.testing.assert_close(spectral_product(x, y), by_hand / 7**0.5, rtol=1e-4, atol=1e-5)


def test_gates_and_filter_by_hand():
    net = Spectrum(1, 4, filter_std=0.0)  # the identity: C1 = x
    with torch.no_grad():
        for gate, weight, bias in ((net.first, 1.0, 0.0), (net.second, 0.0, 2.0)):
            gate.weight.fill_(weight)
            gate.bias.fill_(bias)
    x, y = column(1.0, 2.0, 3.0, 4.0), column(1.0, 0.0, 0.0, 0.0)
    sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    wanted = [2 * (v * sigmoid(v) + 0.5 * v * sigmoid(2.0)) for v in (1, 2, 3, 4)]
    torch.testing.assert_close(net(x, y)[0, :, 0].detach(), torch.tensor(wanted).float())


def test_experts_by_hand():
    """Equal gates at the start; y_t = mean of W_g (z - b_gt); the gates sharpen with V."""
    net = PositionwiseExperts(2, 1, 2, experts=2, dropout=0.0, noise=False)
    with torch.no_grad():
        net.maps.copy_(torch.tensor([[[1.0], [0.0]], [[0.0], [10.0]]]))
        net.offsets[0, 1] = torch.tensor([1.0, 0.0])
    z = torch.tensor([[3.0, 2.0]])
    own, gates = net.of_items(z)
    assert gates.tolist() == [[0.5, 0.5]]
    y = placed(own[None].expand(1, 2, 1), gates[None].expand(1, 2, 2), net.of_positions())
    # 0.5 * 3 + 0.5 * 20, and at position 1 the first expert reads 3 - 1
    assert y[0, :, 0].tolist() == [11.5, 11.0]
    one = PositionwiseExperts(2, 2, 1, experts=1, dropout=0.0, noise=True).eval()
    with torch.no_grad():
        one.offsets[0, 0] = torch.tensor([0.5, -1.0])
    own, gates = one.of_items(z)
    y = placed(own[None], gates[None], one.of_positions())[0, 0]
    torch.testing.assert_close(y, (z[0] - one.offsets[0, 0]) @ one.maps[0])  # exactly W (z - b)


def test_histories_start_at_the_first_column_and_come_back():
    ids = torch.tensor([[0, 0, 5, 7], [1, 2, 3, 4], [0, 0, 0, 0]])
    moved, place = from_the_first(ids, 6)
    assert moved.tolist() == [[5, 7, 0, 0, 0, 0], [1, 2, 3, 4, 0, 0], [0] * 6]
    assert place[:2].tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]


def attached(rings, part=PART, backbone=LAST):
    model = backbone.build(rings.data, 0)
    attach_parts(model, (part,), rings.data, {ITEMS: rings.items}, 0)
    with torch.no_grad():
        for weight in (model.hooks[0].experts.offsets, model.hooks[0].experts.gate):
            weight.normal_()
    return model.eval()


def batch(*rows):
    return SequenceBatch(torch.ones(len(rows), dtype=torch.int64), torch.tensor(rows))


def test_padding_changes_nothing(rings):
    model = attached(rings)
    short = model.history(batch([3, 5, 7]))
    long = model.history(batch([0, 0, 3, 5, 7], [1, 2, 3, 4, 5]))
    torch.testing.assert_close(long[:1, 2:], short)
    assert not long[0, :2].any(), "padding stays zero"
    assert not model.history(batch([0, 0])).any()


def test_a_later_item_changes_an_earlier_row(rings):
    """The trap of the method, stated: therefore the check below."""
    model = attached(rings)
    one, two = model.history(batch([3, 5, 7, 9])), model.history(batch([3, 5, 7, 2]))
    assert not torch.allclose(one[:, :3], two[:, :3])


@pytest.mark.parametrize(
    "backbone", [SASRec(), GRU4Rec(), BERT4Rec()], ids=lambda b: type(b).__name__
)
def test_refused_where_every_position_is_trained(backbone):
    with pytest.raises(PlanError, match='supervise = "last"'):
        check_seams(backbone, (PART,), "x")
    check_seams(LAST, (PART,), "x")


def test_definitions_do_not_load_with_a_shifted_loss():
    recipes = discover()
    _, node = instantiate(Method("tedrec"), recipes)
    assert node.backbone.trains_last_only
    wrong = Method("tedrec", "sasrec", {}, {"supervise": "all"})
    with pytest.raises(PlanError, match="tedrec: SpectralFusion mixes all positions"):
        instantiate(wrong, recipes)
    with pytest.raises(PlanError, match="supervise is 'first'"):
        SASRec(supervise="first")


def test_every_training_row_is_the_target_of_its_own_prefix(rings):
    data, backbone = rings.data, dataclasses.replace(LAST, max_len=3)
    seen = []
    for b in Loader(data, backbone, 0).epoch(1):
        assert not b.targets[:, :-1].any() and (b.targets[:, -1] > 0).all()
        for user, items, targets, begin in zip(b.user, b.items, b.targets, b.begin, strict=True):
            prefix = [int(i) for i in items if i]
            seen.append((int(user), int(begin) + len(prefix), prefix, int(targets[-1])))
    wanted = []
    for user in range(1, data.n_users + 1):
        rows = slice(data.user_start[user], data.user_start[user + 1])
        own = data.item[rows][data.split[rows] == TRAIN].tolist()
        wanted += [(user, t, own[max(0, t - 3) : t], own[t]) for t in range(1, len(own))]
    assert sorted(seen) == sorted(wanted)


def test_scores_are_cosines_against_the_id_table(rings):
    model = attached(rings)
    state = model.user_state(batch([3, 5]))
    hidden = model.hidden_states(batch([3, 5]))[0, -1]
    table = model.item_table.weight
    by_hand = torch.nn.functional.cosine_similarity(hidden, table[1:], dim=-1) / 0.07
    torch.testing.assert_close(model.score(state)[0, 1:], by_hand)


def test_tables_serve_what_the_adapter_gave(rings):
    model = attached(rings)
    rows = batch([0, 3, 5, 20], [1, 2, 3, 4])
    with torch.no_grad():
        before = model.score(model.user_state(rows))
        served = fold(model)
        after = served.score(served.user_state(rows))
    torch.testing.assert_close(after[:, 1:], before[:, 1:], rtol=1e-4, atol=1e-4)
    names = set(served.state_dict())
    assert not [n for n in names if "vectors" in n or "maps" in n], "no text vector is served"


def test_an_item_without_a_vector_keeps_its_id(rings):
    mask = rings.items.mask.copy()
    mask[4] = False
    table = VectorTable("item", rings.items.ids, rings.items.vectors, mask)
    model = LAST.build(rings.data, 0)
    attach_parts(model, (PART,), rings.data, {ITEMS: table}, 0)
    without = int(rings.data.items.index([rings.items.ids[4]])[0])
    hook = model.eval().hooks[0]
    assert not hook.text(torch.tensor([[without, 0]])).any()
    assert model.history(batch([without])).any()
    with torch.no_grad():
        served = fold(model).hooks[0]
    assert not served._text(torch.tensor([[without, 0]])).any()


def test_frozen_vectors_stay_and_the_parts_learn(rings):
    before = rings.items.vectors.copy()
    train = Train(LAST, LOG, fuse=(PART,))
    one = fit(train, rings.data, {ITEMS: rings.items}, seed=0)
    np.testing.assert_array_equal(rings.items.vectors, before)
    start = attached(rings).hooks[0].experts.maps
    learned = one.state["hooks.0.experts.maps"]
    assert not np.allclose(start.detach().numpy(), learned)
    assert np.isfinite([e["train_loss"] for e in one.epochs]).all()
