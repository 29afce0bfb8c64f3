from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from llmers_pipelines.models.gather_net import by_value, pooled, rows


def gradient(made: torch.Tensor, table: torch.Tensor, upper: torch.Tensor) -> torch.Tensor:
    table.grad = None
    made.backward(upper)
    assert table.grad is not None
    return table.grad.clone()


@pytest.mark.parametrize("padding", [-1, 0])
@pytest.mark.parametrize("shape", [(300,), (100, 4)])
@pytest.mark.parametrize("width", [1, 16])
def test_looked_up_rows_have_the_bits_of_torch(shape, width, padding):
    torch.manual_seed(0)
    table = torch.randn(20, width, requires_grad=True)
    ids, upper = torch.randint(0, 20, shape), torch.randn(*shape, width)
    known = padding if padding >= 0 else None
    a, b = rows(table, ids, padding), F.embedding(ids, table, known)
    assert torch.equal(a, b)
    assert torch.equal(gradient(a, table, upper), gradient(b, table, upper))


@pytest.mark.parametrize(("n", "empty"), [(40, 0), (40, 10), (40, 40), (5000, 10)])
def test_pooled_rows_have_the_bits_of_torch(n, empty):
    """Also where torch's own sort is not stable (fewer than 32,768 ids)."""
    torch.manual_seed(0)
    table = torch.randn(30, 8, requires_grad=True)
    ids, weights = torch.randint(0, 30, (n, 7)), torch.rand(n, 7)
    weights[torch.rand(n, 7) < 0.4] = 0
    weights[:empty] = 0
    upper = torch.randn(n, 8)
    a = pooled(table, ids, weights)
    b = F.embedding_bag(ids, table, mode="sum", per_sample_weights=weights)
    assert torch.equal(a, b)
    assert torch.equal(gradient(a, table, upper), gradient(b, table, upper))


def test_gradients_are_those_of_small_differences():
    torch.manual_seed(0)
    table = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    ids, weights = torch.randint(0, 6, (5, 4)), torch.rand(5, 4, dtype=torch.float64)
    weights[0, 1] = 0
    assert torch.autograd.gradcheck(lambda t: pooled(t, ids, weights), table)
    assert torch.autograd.gradcheck(lambda t: rows(t, ids), table)


def test_weights_that_are_trained_have_their_gradient():
    table, ids = torch.randn(6, 3), torch.tensor([[1, 2]])
    weights = torch.ones(1, 2, requires_grad=True)
    pooled(table, ids, weights).sum().backward()
    torch.testing.assert_close(weights.grad, table[ids].sum(2))


def test_the_order_by_value_is_stable():
    ids = torch.tensor([3, 1, 3, 0, 1, 3])
    assert by_value(ids).tolist() == np.argsort(ids.numpy(), kind="stable").tolist()
    assert by_value(torch.tensor([7])).tolist() == [0]
