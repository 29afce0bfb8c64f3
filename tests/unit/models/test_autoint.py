"""What is special to AutoInt: attention over fields."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from llmers_pipelines.models.autoint import AutoInt
from llmers_pipelines.models.autoint_net import Interacting
from llmers_pipelines.testing.contract import contract_data
from llmers_pipelines.train.ctr_loader import Loader

pytestmark = pytest.mark.proof("autoint", "equations")

SMALL = AutoInt(dim=4, mlp=(8, 4), attention=6, heads=2)


@pytest.fixture(scope="module")
def data():
    return contract_data("ctr")


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_a_layer_is_attention_of_an_independent_implementation(scaled, residual):
    torch.manual_seed(0)
    layer = Interacting(5, 6, heads=2, p=0.0, scaled=scaled, residual=residual)
    e = torch.randn(3, 7, 5) * 2
    q, k, v = (w.view(2, 3, 5) for w in layer.projections.weight.chunk(3))
    heads = [
        F.scaled_dot_product_attention(
            e @ q[h].T, e @ k[h].T, e @ v[h].T, scale=3**-0.5 if scaled else 1.0
        )
        for h in range(2)
    ]
    expected = torch.cat(heads, 2)
    if residual:
        expected = expected + e @ layer.residual.weight.T
    torch.testing.assert_close(layer(e), torch.relu(expected))


def test_attention_is_not_scaled_and_has_its_residual_by_default(data):
    net = SMALL.build(data, 0)
    assert [layer.scale for layer in net.layers] == [1.0] * 3
    assert all(layer.residual is not None for layer in net.layers)


def test_a_layer_does_not_depend_on_the_order_of_the_fields():
    layer = Interacting(5, 6, heads=2, p=0.0, scaled=False, residual=True)
    e, order = torch.randn(2, 4, 5), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(layer(e[:, order]), layer(e)[:, order])


def test_the_logit_adds_attention_and_mlp(data):
    net = SMALL.build(data, 0).eval()
    b = next(Loader(data, SMALL, 0).epoch(1))
    e = net.embeddings(b)
    with torch.no_grad():
        net.bias.fill_(0.5)
    expected = 0.5 + net.tower(e.flatten(1)) + net.layers(e).flatten(1) @ net.out.weight[0]
    torch.testing.assert_close(net.logits(b), expected)


def test_heads_must_share_the_width(data):
    with pytest.raises(ValueError, match="attention=7 is not a multiple of heads=2"):
        dataclasses.replace(SMALL, attention=7).build(data, 0)
