"""What is special to DIN: the attention over the history."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from llmers_pipelines.models.batches import CtrBatch
from llmers_pipelines.models.din import DIN
from llmers_pipelines.testing.contract import contract_data

pytestmark = pytest.mark.proof("din", "equations")

SMALL = DIN(dim=4, attention=6, mlp=(12, 6))


@pytest.fixture(scope="module")
def data():
    return contract_data("ctr")


def test_attention_reads_history_candidate_difference_and_product(data):
    net = SMALL.build(data, 0)
    width = net.items.n_fields * SMALL.dim
    h, c = torch.randn(3, 5, width), torch.randn(3, width)
    wide = c.unsqueeze(1).expand_as(h)
    naive = net.attention(torch.cat([h, wide, h - wide, h * wide], 2))
    naive = net.attention_out(torch.relu(naive)).squeeze(2)
    torch.testing.assert_close(net.activation_weights(h, c), naive)


@pytest.mark.parametrize("pool", ["mean", "sum"])
def test_the_user_is_the_weighted_history_without_softmax(data, pool):
    net = dataclasses.replace(SMALL, pool=pool).build(data, 0).eval()
    b = CtrBatch(
        user=torch.tensor([1]), item=torch.tensor([3]), history=torch.tensor([[0, 4, 4]]),
        history_rating=torch.tensor([[0.0, 5.0, 2.0]]), label=None, rows=None,
    )  # fmt: skip
    inputs = []
    net.tower.first.register_forward_hook(lambda m, x, y: inputs.append(x[0]))
    net.logits(b)
    item = net.items(torch.tensor([4])).flatten()
    h = torch.stack([item + net.signal.weight[2], item + net.signal.weight[1]])  # levels 2 and 5
    c = net.items(torch.tensor([3])).flatten(1)
    a = net.activation_weights(h.unsqueeze(0), c).squeeze(0)
    u = (a.unsqueeze(1) * h).sum(0) / (2 if pool == "mean" else 1)
    profile = net.users(torch.tensor([1])).flatten(1)
    torch.testing.assert_close(inputs[0], torch.cat([u.unsqueeze(0), c, profile], 1))


def test_without_ratings_the_history_is_its_items_alone(data):
    net = SMALL.build(data, 0)
    assert not net.signal.weight[0].any()
    b = CtrBatch(
        user=torch.tensor([1]), item=torch.tensor([3]), history=torch.tensor([[4]]),
        history_rating=None, label=None, rows=None,
    )  # fmt: skip
    h, _ = net.history(b)
    torch.testing.assert_close(h[0], net.items(torch.tensor([4])).flatten(1))


def test_an_unknown_pool_is_named(data):
    with pytest.raises(ValueError, match=r"'max'.*'mean' or 'sum'"):
        dataclasses.replace(SMALL, pool="max").build(data, 0)
