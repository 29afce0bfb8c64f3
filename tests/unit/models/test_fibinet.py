"""What is special to FiBiNET: SENET and bilinear pairs."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from llmers_pipelines.models.fibinet import FiBiNET
from llmers_pipelines.models.fibinet_net import SENET, Bilinear
from llmers_pipelines.testing.contract import contract_data
from llmers_pipelines.train.ctr_loader import Loader

pytestmark = pytest.mark.proof("fibinet", "equations")

SMALL = FiBiNET(dim=4, mlp=(8, 4))


class Largest(TorchDispatchMode):
    """The size of the largest tensor that an operation gave."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.numbers = max(self.numbers, out.numel())
        return out


def test_senet_by_hand():
    senet = SENET(3, reduction=3)
    with torch.no_grad():
        senet.squeeze.weight.copy_(torch.tensor([[1.0, 1.0, 0.0]]))
        senet.excite.weight.copy_(torch.tensor([[2.0], [-1.0], [0.5]]))
    e = torch.tensor([[[1.0, 3.0], [2.0, 0.0], [4.0, 4.0]]])
    # z = (2, 1, 4), W_1 z = 3, a = ReLU(6, -3, 1.5): ReLU goes beyond 1 and down to 0
    assert senet(e).tolist() == [[[6.0, 18.0], [0.0, 0.0], [6.0, 6.0]]]


@pytest.mark.parametrize(
    ("kind", "equation"),
    [("all", "bid,dk,bjk->bijk"), ("each", "bid,idk,bjk->bijk"), ("interaction", "")],
)
def test_bilinear_pairs_are_their_sums(kind, equation):
    torch.manual_seed(0)
    layer, e = Bilinear(4, 3, kind), torch.randn(2, 4, 3)
    at = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    if kind == "interaction":
        parts = [
            torch.einsum("bd,dk,bk->bk", e[:, i], w, e[:, j])
            for (i, j), w in zip(at, layer.weight, strict=True)
        ]
    else:
        w = layer.weight[0] if kind == "all" else layer.weight
        whole = torch.einsum(equation, e, w, e)
        parts = [whole[:, i, j] for i, j in at]
    torch.testing.assert_close(layer(e), torch.stack(parts, 1))
    assert len(layer.weight) == {"all": 1, "each": 4, "interaction": 6}[kind]


@pytest.mark.parametrize("kind", ["all", "each", "interaction"])
def test_memory_is_that_of_the_pairs_and_no_more(kind):
    """No product over all F x F pairs of fields, of which half are not wanted, is ever held."""
    fields, dim, rows = 8, 5, 7
    layer, made = Bilinear(fields, dim, kind), Largest()
    with made:
        layer(torch.randn(rows, fields, dim))
    assert made.numbers == rows * dim * fields * (fields - 1) // 2


def test_the_mlp_reads_pairs_of_both_embeddings():
    data = contract_data("ctr")
    net = SMALL.build(data, 0).eval()
    b = next(Loader(data, SMALL, 0).epoch(1))
    e = net.embeddings(b)
    x = torch.cat([net.plain(e).flatten(1), net.weighted(net.senet(e)).flatten(1)], 1)
    assert x.shape[1] == net.n_fields * (net.n_fields - 1) * 4
    with torch.no_grad():
        net.bias.fill_(0.5)
    torch.testing.assert_close(net.logits(b), 0.5 + net.tower(x))


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match=r"'some'.*'all', 'each', 'interaction'"):
        dataclasses.replace(SMALL, bilinear="some").build(contract_data("ctr"), 0)
