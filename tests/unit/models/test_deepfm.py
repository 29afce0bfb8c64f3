"""What is special to DeepFM: the factorization machine and what enters it."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from llmers_pipelines.models.batches import CtrBatch
from llmers_pipelines.models.deepfm import DeepFM
from llmers_pipelines.models.deepfm_net import fm
from llmers_pipelines.testing.contract import contract_data

pytestmark = pytest.mark.proof("deepfm", "equations")

SMALL = DeepFM(dim=4, mlp=(8, 4))


@pytest.fixture(scope="module")
def net():
    return SMALL.build(contract_data("ctr"), 0).eval()


def batch(history, rating, item=3):
    return CtrBatch(
        user=torch.tensor([1]), item=torch.tensor([item]), history=torch.tensor([history]),
        history_rating=None if rating is None else torch.tensor([rating]), label=None, rows=None,
    )  # fmt: skip


def test_fm_of_the_golden_case():
    e = torch.tensor([[[1.0, 2.0], [3.0, -1.0], [0.0, 4.0]]])
    assert fm(e).item() == 5


def test_fm_is_the_sum_over_all_pairs():
    e = torch.randn(2, 5, 3, dtype=torch.float64)
    pairs = sum((e[:, i] * e[:, j]).sum(1) for i, j in itertools.combinations(range(5), 2))
    torch.testing.assert_close(fm(e), pairs)


def test_the_history_is_the_mean_of_the_liked_items(net):
    e = net.embeddings(batch([4, 5, 6], [5.0, 2.0, 5.0]))
    items = net.items(torch.tensor([4, 6])).mean(0)
    torch.testing.assert_close(e[0, -net.items.n_fields :], items)
    other = net.embeddings(batch([4, 9, 6], [5.0, 2.0, 5.0]))
    assert torch.equal(e, other)
    assert not torch.equal(e, net.embeddings(batch([4, 5, 6], [5.0, 5.0, 5.0])))


def test_a_history_without_liked_items_is_the_zero_vector(net):
    e = net.embeddings(batch([4, 5], [2.0, 2.0]))
    assert not e[0, -net.items.n_fields :].any()


def test_without_ratings_every_item_of_the_history_counts(net):
    e = net.embeddings(batch([0, 4, 6], None))
    torch.testing.assert_close(e[0, -net.items.n_fields :], net.items(torch.tensor([4, 6])).mean(0))


def test_the_logit_is_bias_linear_fm_and_mlp():
    net = SMALL.build(contract_data("ctr"), 0).eval()
    b = batch([4, 6], [5.0, 5.0])
    e = net.embeddings(b)
    expected = fm(e) + net.tower(e.flatten(1))
    torch.testing.assert_close(net.logits(b), expected)  # linear terms start at zero
    with torch.no_grad():
        net.bias.fill_(0.5)
        net.item_weights.table.weight[3] = 0.25
        net.user_weights.table.weight[1] = 2.0
    torch.testing.assert_close(net.logits(b), expected + 2.75)


def test_extra_columns_have_a_linear_term_and_stay_out_of_the_fm():
    class Columns(nn.Module):
        def feature_columns(self, model, nxt, batch):
            return [*nxt(batch), torch.ones(1, 3)]

    net = SMALL.build(contract_data("ctr"), 0).eval()
    b = batch([4], [5.0])
    base, pairs = net.logits(b), fm(net.embeddings(b))
    net.add_columns(3)
    net.hooks.append(Columns())
    block = net.columns.blocks[0]
    with torch.no_grad():
        block.deep.weight.zero_()
        block.linear.weight.copy_(torch.tensor([[1.0, 2.0, 4.0]]))
    torch.testing.assert_close(net.logits(b), base + 7)
    assert torch.equal(fm(net.embeddings(b)), pairs)
