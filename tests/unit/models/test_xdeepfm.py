"""What is special to xDeepFM: the compressed interaction network."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from llmers_pipelines.models import xdeepfm_net
from llmers_pipelines.models.xdeepfm import XDeepFM
from llmers_pipelines.models.xdeepfm_net import CIN
from llmers_pipelines.testing.contract import contract_data
from llmers_pipelines.train.ctr_loader import Loader

pytestmark = pytest.mark.proof("xdeepfm", "equations")

SMALL = XDeepFM(dim=4, mlp=(8, 4), cin=(6, 4))


def by_loops(e: np.ndarray, weights: list[np.ndarray], split_half: bool) -> np.ndarray:
    """The CIN of one row e (F, D), one sum after the other."""
    fields, dim = e.shape
    x, out = e, []
    for number, w in enumerate(weights, start=1):
        maps = np.zeros((len(w), dim))
        for h in range(len(w)):
            for i in range(len(x)):
                for j in range(fields):
                    for d in range(dim):
                        maps[h, d] += w[h, i * fields + j] * x[i, d] * e[j, d]
        if split_half and number < len(weights):
            half = len(maps) // 2
            x, kept = maps[:half], maps[half:]
        else:
            x = kept = maps
        out.extend(kept.sum(1))
    return np.array(out)


@pytest.mark.parametrize("split_half", [False, True])
def test_the_cin_is_its_equation(split_half):
    torch.manual_seed(0)
    cin = CIN(3, (4, 2, 3), split_half).double()
    e = torch.randn(2, 3, 5).double()
    weights = [w.detach().numpy() for w in cin.weights]
    expected = np.stack([by_loops(row, weights, split_half) for row in e.numpy()])
    assert cin.width == expected.shape[1]
    np.testing.assert_allclose(cin(e).detach().numpy(), expected, rtol=1e-9)


def test_one_map_by_hand():
    cin = CIN(2, (1,), False)
    with torch.no_grad():
        cin.weights[0].copy_(torch.tensor([[1.0, 2.0, 0.0, 3.0]]))  # pairs 11, 12, 21, 22
    e = torch.tensor([[[1.0, 2.0], [3.0, -1.0]]])
    # width 1: 1*1 + 2*3 + 3*9 = 34; width 2: 4 + 2*(-2) + 3*1 = 3
    assert cin(e).tolist() == [[37.0]]


def test_layers_are_linear_in_each_field():
    cin = CIN(2, (3, 3), False)
    e = torch.randn(1, 2, 4)
    # without an activation, layer k is of degree k + 1
    torch.testing.assert_close(cin(2 * e)[:, :3], 4 * cin(e)[:, :3])
    torch.testing.assert_close(cin(-2 * e)[:, 3:], -8 * cin(e)[:, 3:])


def test_blocks_bound_the_memory_and_change_neither_values_nor_gradients(monkeypatch):
    cin = CIN(4, (6, 6), False).double()
    e = torch.randn(50, 4, 5).double().requires_grad_()
    whole = cin(e)
    whole.square().sum().backward()
    expected = [e.grad.clone(), *(w.grad.clone() for w in cin.weights)]
    e.grad = None
    cin.zero_grad()
    rows = []
    block = cin.block
    monkeypatch.setattr(cin, "block", lambda x: rows.append(len(x)) or block(x))
    monkeypatch.setattr(xdeepfm_net, "BLOCK_FLOATS", 7 * 24 * 5)
    parts = cin(e)
    torch.testing.assert_close(parts, whole)
    parts.square().sum().backward()
    assert max(rows) == 7
    for found, wanted in zip([e.grad, *(w.grad for w in cin.weights)], expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_the_logit_adds_linear_cin_and_mlp():
    data = contract_data("ctr")
    net = SMALL.build(data, 0).eval()
    b = next(Loader(data, SMALL, 0).epoch(1))
    e = net.embeddings(b)
    with torch.no_grad():
        net.bias.fill_(0.5)
    expected = 0.5 + net.tower(e.flatten(1)) + net.cin(e) @ net.cin_out.weight[0]
    torch.testing.assert_close(net.logits(b), expected)


def test_odd_maps_are_not_split():
    with pytest.raises(ValueError, match="cannot be split in half"):
        dataclasses.replace(SMALL, cin=(5, 4), split_half=True).build(contract_data("ctr"), 0)
