from __future__ import annotations

import pytest
import torch

from llmers_pipelines.models.recurrent_net import gru, recurrence


def both(first, second, layer, x, upper):
    made = []
    for f in (first, second):
        x.grad = None
        layer.zero_grad()
        out = f(layer, x)
        out.backward(upper)
        made.append([out.detach(), x.grad.clone(), *(p.grad.clone() for p in layer.parameters())])
    return zip(*made, strict=True)


@pytest.mark.parametrize(("rows", "length"), [(3, 5), (1, 1), (7, 12)])
def test_states_and_gradients_are_those_of_torch(rows, length):
    torch.manual_seed(0)
    layer = torch.nn.GRU(4, 6, batch_first=True).double()
    x = torch.randn(rows, length, 4, dtype=torch.float64, requires_grad=True)
    upper = torch.randn(rows, length, 6, dtype=torch.float64)
    for a, b in both(lambda g, x: g(x)[0], lambda g, x: recurrence(g, x, False), layer, x, upper):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_products_in_bfloat16_are_near():
    torch.manual_seed(0)
    layer = torch.nn.GRU(16, 32, batch_first=True)
    x, upper = torch.randn(8, 10, 16, requires_grad=True), torch.randn(8, 10, 32)
    assert torch.equal(gru(layer, x), layer(x)[0])
    with torch.autocast("cpu", torch.bfloat16):
        half = gru(layer, x.bfloat16())
    assert half.dtype == torch.float32
    assert not torch.equal(half, layer(x)[0])
    for a, b in both(lambda g, x: g(x)[0], lambda g, x: recurrence(g, x, True), layer, x, upper):
        assert (a - b).abs().max() < 0.02 * a.abs().max()
