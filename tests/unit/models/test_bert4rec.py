"""BERT4Rec: masking, the appended mask, attention both ways against an independent one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from llmers_pipelines.data.training import HISTORY, TRAIN
from llmers_pipelines.models.batches import SequenceBatch
from llmers_pipelines.models.bert4rec import BERT4Rec
from llmers_pipelines.models.ranking_net import scoring_batch
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.loop import load_loader

pytestmark = pytest.mark.proof("bert4rec", "equations")

SMALL = BERT4Rec(dim=8, inner=16, heads=2, layers=2, max_len=6, dropout=0.0)
KINDS = [SMALL, dataclasses.replace(SMALL, positions="right")]


@pytest.fixture(scope="module")
def data():
    return planted_rings(n_users=40, n_items=20, length=(5, 14)).data


def built(data, backbone=SMALL):
    net = backbone.build(data, 0).eval()
    with torch.no_grad():
        net.bias.normal_()[0] = 0
    return net


def scored(net, *histories):
    lists = [np.array(h, np.int64) for h in histories]
    users = np.ones(len(lists), np.int64)
    with torch.no_grad():
        return net.score(net.user_state(scoring_batch(users, lists, net.max_len)))


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.positions)
def test_states_are_those_of_a_transformer_encoder_with_a_head(data, kind):
    net = built(data, kind)
    history = [3, 7, 1]
    block = [nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True) for _ in range(2)]
    for theirs, ours in zip(block, net.blocks, strict=True):
        theirs.self_attn.in_proj_weight.data = ours.qkv.weight.data
        theirs.self_attn.in_proj_bias.data = ours.qkv.bias.data
        for name, part in (("self_attn.out_proj", ours.out), ("linear1", ours.up),
                           ("linear2", ours.down), ("norm1", ours.attention_norm),
                           ("norm2", ours.inner_norm)):  # fmt: skip
            theirs.get_submodule(name).load_state_dict(part.state_dict())
    bias = None
    with torch.no_grad():
        x = torch.cat([net.item_table.weight[history], net.mask_vector[None]])
        if kind.positions == "distance":  # one number per head and signed distance, -5 to 5
            net.distances.normal_()
            bias = torch.tensor([[[net.distances[h, 5 + t - s] for s in range(4)] for t in range(4)]
                                 for h in range(2)])  # fmt: skip
        else:
            x = x + net.places[:4].flip(0)
        x = net.norm(x)[None]
        for layer in block:
            x = layer(x, src_mask=bias)  # training mode: the fused path misreads such masks
        h = net.head_norm(F.gelu(net.head(x[0, -1])))
        expected = net.item_table.weight @ h + net.bias
    torch.testing.assert_close(scored(net, history)[0], expected, atol=1e-5, rtol=1e-5)


def test_before_and_after_are_told_apart(data):
    net = built(data)
    users, aims = torch.ones(1, dtype=torch.int64), torch.tensor([[0, 4, 0]])

    def state(row):
        return net.user_state(SequenceBatch(users, torch.tensor([row]), aims))[:, 1]

    either = [[3, net.mask_id, 5], [5, net.mask_id, 3]]
    torch.testing.assert_close(*map(state, either))  # biases start at zero
    with torch.no_grad():
        net.distances.normal_()
    assert not torch.allclose(*map(state, either), atol=1e-4)


def test_unknown_positions_are_refused(data):
    with pytest.raises(ValueError, match="unknown positions 'left'"):
        dataclasses.replace(SMALL, positions="left").build(data, 0)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.positions)
def test_left_padding_changes_nothing(data, kind):
    net = built(data, kind)
    if kind.positions == "distance":
        net.distances.data.normal_()
    torch.testing.assert_close(scored(net, [3, 5], [1, 2, 3, 4, 5])[:1], scored(net, [3, 5]))


def test_the_appended_mask_takes_the_place_of_the_oldest_item(data):
    net = built(data)
    full = [9, 1, 2, 3, 4, 5]
    torch.testing.assert_close(scored(net, full), scored(net, full[1:]))
    assert not torch.allclose(scored(net, full), scored(net, [2, 3, 4, 5]), atol=1e-4)


def test_it_reads_both_ways(data):
    net = built(data)
    users = torch.ones(1, dtype=torch.int64)
    mask = net.mask_id
    aims = torch.tensor([[0, 4, 0]])
    first = net.user_state(SequenceBatch(users, torch.tensor([[3, mask, 5]]), aims))
    later = net.user_state(SequenceBatch(users, torch.tensor([[3, mask, 6]]), aims))
    assert not torch.allclose(first[:, 1], later[:, 1], atol=1e-4)


def test_neither_padding_nor_the_mask_can_be_scored_or_read_by_a_hook(data):
    net = built(data)
    assert scored(net, [3]).shape == (1, data.n_items + 1)
    asked = []

    class Watch(nn.Module):
        def item_input(self, model, nxt, ids):
            asked.append(int(ids.max()))
            return nxt(ids)

    net.hooks.append(Watch())
    scored(net, [data.n_items, 3])
    assert asked == [data.n_items]


def test_it_is_given_many_times_the_epochs_of_sasrec_before_it_is_stopped():
    """It converges 10 to 30 times as slowly; one that is stopped early is an underfit baseline."""
    own, other = BERT4Rec().fit, SASRec().fit
    assert own.patience * own.eval_every >= 3 * other.patience * other.eval_every
    assert own.min_epochs >= 5 * other.min_epochs and own.epochs >= 3 * other.epochs


def test_an_empty_history_is_scored(data):
    assert torch.isfinite(scored(built(data), [])).all()


def test_only_masked_positions_are_trained_and_their_items_are_hidden(data):
    loader = load_loader("cloze")(data, SMALL, 0)
    count = masked = 0
    for batch in loader.epoch(1):
        gap = batch.items == data.n_items + 1
        assert torch.equal(gap, batch.targets > 0)
        assert gap.any(1).all()
        assert batch.items.shape[1] <= SMALL.max_len
        count, masked = count + int((batch.items > 0).sum()), masked + int(gap.sum())
    assert 0.15 < masked / count < 0.45
    again = [b.items for b in load_loader("cloze")(data, SMALL, 0).epoch(1)]
    assert all(torch.equal(a, b.items) for a, b in zip(again, loader.epoch(1), strict=True))
    other = next(iter(loader.epoch(2))).items
    assert other.shape != again[0].shape or not torch.equal(other, again[0])


def test_share_of_masks_and_the_newest_alone(data):
    rng = np.random.default_rng(0)
    items = np.arange(1, 21)[None].repeat(2000, 0)
    aim = items.copy()
    aim[:, -1] = 0  # the newest row is no training row
    loader = load_loader("cloze")(data, dataclasses.replace(SMALL, last=0.0), 0)
    assert (loader.masked(items, aim, rng)[1] > 0).mean() == pytest.approx(0.2 * 19 / 20, abs=0.01)
    loader = load_loader("cloze")(data, dataclasses.replace(SMALL, last=1.0), 0)
    given, targets = loader.masked(items, aim, rng)
    assert (targets > 0).sum() == 2000 and (targets[:, -2] == 19).all()
    assert (given[:, -1] == 20).all()


def test_all_training_rows_come_up_and_no_held_out_or_history_row_is_masked(data):
    split = data.split.copy()
    rows = np.flatnonzero((split == TRAIN) & (np.arange(len(split)) % 5 == 0))
    split[rows] = HISTORY
    mixed = dataclasses.replace(data, split=split)
    loader = load_loader("cloze")(mixed, dataclasses.replace(SMALL, mask=0.9, last=0.0), 0)
    may = set(zip(mixed.user[split == TRAIN], mixed.item[split == TRAIN], strict=True))
    for batch in loader.epoch(1):
        for user, row in zip(batch.user.tolist(), batch.targets.tolist(), strict=True):
            assert all((user, i) in may for i in row if i)
