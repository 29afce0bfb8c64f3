"""What all networks of click logs promise: fields, padding, extra columns, export."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from llmers_pipelines.data.training import TRAIN, Field
from llmers_pipelines.models.autoint import AutoInt
from llmers_pipelines.models.batches import CtrBatch
from llmers_pipelines.models.ctr_fields import ctr_fields, rating_levels
from llmers_pipelines.models.ctr_net import Dice, Distinct, EntityFields, Tower
from llmers_pipelines.models.dcnv2 import DCNv2
from llmers_pipelines.models.deepfm import DeepFM
from llmers_pipelines.models.dien import DIEN
from llmers_pipelines.models.din import DIN
from llmers_pipelines.models.dlrm import DLRM
from llmers_pipelines.models.fibinet import FiBiNET
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.mmoe import MMoE
from llmers_pipelines.models.ple import PLE
from llmers_pipelines.models.served import load_served
from llmers_pipelines.models.star import STAR
from llmers_pipelines.models.xdeepfm import XDeepFM
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.testing.contract import contract_data
from llmers_pipelines.train.ctr_loader import Loader, auc
from llmers_pipelines.train.loop import fit

LOG = Table("splits", task="multi_scenario")
FIT = Fit(lr=1e-2, batch=16, epochs=2, min_epochs=1, metric="auc")
KINDS = [
    DIN(dim=4, attention=8, mlp=(16, 8), fit=FIT),
    DeepFM(dim=4, mlp=(16, 8), fit=FIT),
    DCNv2(dim=4, mlp=(16, 8), fit=FIT),
    AutoInt(dim=4, mlp=(16, 8), attention=8, fit=FIT),
    XDeepFM(dim=4, mlp=(16, 8), cin=(6, 4), fit=FIT),
    FiBiNET(dim=4, mlp=(16, 8), fit=FIT),
    DIEN(dim=4, mlp=(16, 8), fit=FIT),
    DLRM(dim=4, mlp=(16, 8), bottom=(8,), fit=FIT),
]
SCENARIOS = [
    MMoE(dim=4, mlp=(16, 8), tower=(8,), fit=FIT),
    PLE(dim=4, mlp=(16, 8), tower=(8,), levels=2, fit=FIT),
    STAR(dim=4, mlp=(16, 8), auxiliary=(8,), fit=FIT),
]
name = lambda b: type(b).__name__.lower()  # noqa: E731
kinds = pytest.mark.parametrize("backbone", [*KINDS, *SCENARIOS], ids=name)
towers = pytest.mark.parametrize("backbone", KINDS, ids=name)


@pytest.fixture(scope="module")
def data():
    """A log with scenarios, which models of one scenario do not read."""
    return contract_data("multi_scenario")


def batch(history, rating=None, item=(3,), user=(1,)):
    n = len(history)
    return CtrBatch(
        user=torch.tensor(user * n), item=torch.tensor(item * n), history=torch.tensor(history),
        history_rating=None if rating is None else torch.tensor(rating),
        label=torch.ones(n), rows=None,
    )  # fmt: skip


def lively(backbone, data):
    """A net in evaluation whose weights are all far from zero, so that a mistake shows."""
    net = backbone.build(data, 0).eval()
    draws = torch.Generator().manual_seed(5)  # not the order of the tests
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(std=0.3, generator=draws)
        net.items.table.weight[0] = 0
    return net


@kinds
def test_left_padding_changes_nothing(backbone, data):
    net = lively(backbone, data)
    short = net.logits(batch([[4, 5]], [[5.0, 5.0]]))
    padded = net.logits(batch([[0, 0, 4, 5], [1, 2, 4, 5]], [[0, 0, 5.0, 5.0], [5.0] * 4]))
    torch.testing.assert_close(padded[:1], short)
    assert (padded[1] - short).abs() > 1e-4


@kinds
def test_an_empty_history_and_an_unknown_user_have_a_finite_score(backbone, data):
    net = lively(backbone, data)
    logits = net.logits(batch([[0]], [[0.0]], user=(0,)))
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(net.logits(batch([[0, 0, 0]], user=(0,))), logits)


@kinds
def test_the_first_loss_is_that_of_a_coin(backbone, data):
    net = backbone.build(data, 0)
    loader = Loader(data, backbone, 0)
    loss = torch.stack([net.loss(b).detach() for b in loader.epoch(1)]).mean()
    coins = 3 if isinstance(backbone, DIEN) else 1  # its auxiliary loss has two terms
    assert abs(float(loss) - coins * math.log(2)) < 0.05 * coins


@kinds
def test_building_is_determined_by_the_seed_and_leaves_the_global_stream_alone(backbone, data):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    nets = [backbone.build(data, seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), expected)
    first, second, other = (torch.cat([p.flatten() for p in n.parameters()]) for n in nets)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@kinds
def test_it_learns_by_heart(backbone, data):
    how = dataclasses.replace(backbone.fit, epochs=12, weight_decay=0.0)
    net = dataclasses.replace(backbone, fit=how, dropout=0.0)
    model = net.build(data, 0)
    loader = Loader(data, net, 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for number in range(1, how.epochs + 1):
        for b in loader.epoch(number):
            optimizer.zero_grad()
            model.loss(b).backward()
            optimizer.step()
    rows = np.flatnonzero(data.split == TRAIN)
    assert auc(data.label[rows], loader.probabilities(model, rows)) > 0.95


@kinds
def test_an_export_predicts_the_same(backbone, data):
    trained = fit(Train(backbone, LOG), data, {}, seed=0)
    config, arrays = trained.export()
    served = load_served(json.loads(json.dumps(config)), arrays)
    rows = np.arange(20, 40)
    b = Loader(data, backbone, 0).batch(torch.from_numpy(rows))
    histories = [h[h > 0] for h in b.history.numpy()]
    ratings = [r[h > 0] for r, h in zip(b.history_rating.numpy(), b.history.numpy(), strict=True)]
    p = served.predict(data.user[rows], data.item[rows], histories, ratings, b.scenario)
    np.testing.assert_allclose(p, trained.predict(rows), rtol=1e-5, atol=1e-6)


@kinds
def test_options_switch_id_fields_off(backbone, data):
    net = dataclasses.replace(backbone, user_id=False, item_id=False).build(data, 0)
    assert net.users.table is None
    assert torch.isfinite(net.logits(batch([[4, 5]], [[5.0, 1.0]]))).all()
    with pytest.raises(ValueError, match="item_id=True"):
        _ = net.item_table
    with pytest.raises(ValueError, match="user_id=True"):
        _ = net.user_table
    bare = dataclasses.replace(data, item_fields={}, user_fields={})
    with pytest.raises(ValueError, match="at least one item field"):
        dataclasses.replace(backbone, item_id=False).build(bare, 0)
    alone = dataclasses.replace(backbone, user_id=False).build(bare, 0)
    assert torch.isfinite(alone.logits(batch([[4, 5]]))).all()


@kinds
def test_id_tables_have_a_zero_row_for_padding(backbone, data):
    net = backbone.build(data, 0)
    for table, n in ((net.item_table, data.n_items), (net.user_table, data.n_users)):
        assert table.weight.shape == (n + 1, backbone.dim)
        assert not table.weight[0].any()
        assert table.weight[1:].any(dim=1).all()


class Hook(nn.Module):
    def __init__(self, *columns):
        super().__init__()
        self.values = columns

    def feature_columns(self, model, nxt, batch):
        return [*nxt(batch), *self.values]


@towers
def test_extra_columns_are_a_concatenation_before_the_first_layer(backbone, data):
    net = lively(backbone, data)
    b = batch([[4, 5], [6, 7]], [[5.0, 1.0], [5.0, 5.0]])
    base = net.logits(b)
    one, two = torch.randn(2, 3), torch.randn(2, 5)
    for width in (3, 5):
        net.add_columns(width)
    net.hooks.extend([Hook(one), Hook(two)])
    blocks = net.columns.blocks
    wide = nn.Linear(net.tower.first.in_features + 8, net.tower.first.out_features)
    with torch.no_grad():
        wide.bias.copy_(net.tower.first.bias)
        wide.weight.copy_(
            torch.cat([net.tower.first.weight, *(block.deep.weight for block in blocks)], 1)
        )
    seen = []
    handle = net.tower.first.register_forward_hook(lambda m, x, y: seen.append(x[0]))
    with_columns = net.logits(b)
    handle.remove()
    expected = net.tower.rest(wide(torch.cat([seen[0], one, two], 1))).squeeze(1)
    without = net.tower.rest(net.tower.first(seen[0])).squeeze(1)
    torch.testing.assert_close(with_columns - base, expected - without, atol=1e-5, rtol=1e-4)
    assert (with_columns - base).abs().min() > 1e-4


@kinds
def test_extra_columns_reach_the_logit(backbone, data):
    net = lively(backbone, data)
    b = batch([[4, 5], [6, 7]], [[5.0, 1.0], [5.0, 5.0]])
    base = net.logits(b)
    net.add_columns(3)
    zero, one = Hook(torch.zeros(2, 3)), Hook(torch.ones(2, 3))
    net.hooks.append(zero)
    torch.testing.assert_close(net.logits(b), base, atol=0, rtol=0)
    net.hooks[0] = one
    assert (net.logits(b) - base).abs().min() > 1e-4


@kinds
def test_columns_without_weights_are_refused(backbone, data):
    net = backbone.build(data, 0)
    net.hooks.append(Hook(torch.ones(1, 3)))
    with pytest.raises(ValueError, match=r"widths \[3\], but weights for \[\]"):
        net.logits(batch([[4]]))


@pytest.mark.parametrize(
    "backbone", [b for b in (*KINDS, *SCENARIOS) if hasattr(b, "grouped")], ids=name
)
@pytest.mark.parametrize("ids", [True, False])
def test_rows_that_share_a_user_or_an_item_share_its_vectors_and_nothing_changes(
    backbone, ids, data
):
    made = []
    for grouped in (False, True):
        own = dataclasses.replace(backbone, grouped=grouped, dropout=0.0, user_id=ids)
        net = lively(own, data).double().train()
        if not isinstance(backbone, (MMoE, PLE, STAR)):
            net.hooks.append(Hook(torch.ones(24, 3, dtype=torch.float64)))
            torch.manual_seed(1)
            net.add_columns(3)
            net.columns.double()
        b = Loader(data, own, 0).batch(torch.from_numpy(np.flatnonzero(data.split == TRAIN)[:24]))
        b = dataclasses.replace(b, label=b.label.double())
        torch.manual_seed(2)  # the gates of some draw
        loss = net.loss(b)
        loss.backward()
        made.append({"loss": loss.detach()} | {n: p.grad for n, p in net.named_parameters()})
    assert len(b.user.unique()) < 24 and len(b.item.unique()) < 24
    for key, plain in made[0].items():
        torch.testing.assert_close(made[1][key], plain, rtol=0, atol=1e-9)
    assert made[0]["items.values.weight"].abs().max() > 1e-4


def test_settings_of_before_are_written_as_before(data):
    assert "grouped" not in KINDS[1].build(data, 0).config
    assert dataclasses.replace(KINDS[1], grouped=True).build(data, 0).config["grouped"] is True


def test_a_field_with_several_values_is_their_mean():
    codes = {"kind": np.array([[0], [1], [2]]), "genres": np.array([[0, 0], [2, 0], [1, 3]])}
    shape = {"kind": [2, 1], "genres": [3, 2]}
    fields = EntityFields(2, shape, dim=4, ids=True, std=1.0)
    fields.fill(codes, shape, np.ones(3, bool))
    out = fields(torch.tensor([0, 1, 2]))
    assert out.shape == (3, 3, 4)
    assert not out[0, 0].any()
    kind, genres = fields.values.weight[:3], fields.values.weight[3:]
    torch.testing.assert_close(out[:, 1], kind)
    expected = torch.stack([genres[0], genres[2], (genres[1] + genres[3]) / 2])
    torch.testing.assert_close(out[:, 2], expected)


def test_distinct_entities_are_found_again():
    history, item = torch.tensor([[0, 7, 3], [3, 3, 9]]), torch.tensor([7, 1])
    distinct = Distinct(11, history, item)
    assert distinct.ids.tolist() == [0, 1, 3, 7, 9]
    assert torch.equal(distinct.ids[distinct.place(history)], history)
    assert torch.equal(distinct.ids[distinct.place(item)], item)


def test_dice_is_prelu_with_a_smooth_switch_and_takes_a_single_row():
    dice = Dice(1)
    with torch.no_grad():
        dice.a.fill_(0.25)
    x = torch.tensor([[-2.0], [0.0], [2.0]])
    z = x / (x.square().mean() + dice.norm.eps).sqrt()
    p = torch.sigmoid(z)
    torch.testing.assert_close(dice(x), p * x + (1 - p) * 0.25 * x)
    before = dice.norm.running_mean.clone()
    assert torch.isfinite(dice(x[:1])).all()
    assert torch.equal(dice.norm.running_mean, before)


def test_an_unknown_activation_is_named():
    with pytest.raises(ValueError, match=r"'swish'.*'dice', 'prelu' or 'relu'"):
        Tower(3, (4,), "swish", 0.0)


def test_rating_levels_know_where_liking_begins():
    signal = np.array([1, 2, 3, 4, 5, 5], np.float32)
    levels, liked = rating_levels(signal, (signal >= 4).astype(np.float32))
    assert levels.tolist() == [1, 2, 3, 4, 5]
    assert liked == 4
    many = np.arange(1000, dtype=np.float32)
    levels, liked = rating_levels(many, (many >= 500).astype(np.float32))
    assert len(levels) <= 16
    assert 400 <= liked <= 600


def test_fields_of_a_log_are_checked(data):
    fields = ctr_fields(data)
    assert fields.shape["item"] == {"genre": [3, 1]}
    assert fields.shape["levels"] == [2.0, 5.0]
    assert fields.shape["liked_from"] == 5.0
    with pytest.raises(ValueError, match="no labels"):
        ctr_fields(dataclasses.replace(data, label=None))
    short = {"kind": Field(np.zeros(3, np.int32), ("a",))}
    with pytest.raises(ValueError, match="item field 'kind' has 3 rows of codes; 21 expected"):
        ctr_fields(dataclasses.replace(data, item_fields=short))
    high = {"kind": Field(np.full(21, 2, np.int32), ("a",))}
    with pytest.raises(ValueError, match=r"codes 2\.\.2; 0\.\.1 expected"):
        ctr_fields(dataclasses.replace(data, item_fields=high))
