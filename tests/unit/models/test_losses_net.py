from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from llmers_pipelines.models import losses_net
from llmers_pipelines.models.dropout_net import dropout
from llmers_pipelines.models.losses_net import (
    bpr,
    full_cross_entropy,
    sampled_softmax,
    shared_softmax,
)


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_chunked_cross_entropy_is_cross_entropy_without_column_zero(rows, monkeypatch):
    monkeypatch.setattr(losses_net, "CHUNK_FLOATS", 13 * 21)
    monkeypatch.setattr(losses_net, "MIN_ROWS", 1)
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(rows, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    table = torch.randn(21, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(1, 21, (rows,), generator=generator)

    logits = states @ table.T
    logits = torch.cat([torch.full((rows, 1), -torch.inf, dtype=logits.dtype), logits[:, 1:]], 1)
    expected = F.cross_entropy(logits, targets)
    wanted = torch.autograd.grad(3 * expected, (states, table))
    loss = full_cross_entropy(states, table, targets)
    found = torch.autograd.grad(3 * loss, (states, table))

    torch.testing.assert_close(loss, expected)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)
    assert not found[1][0].any()  # padding


@pytest.mark.parametrize("rows", [1, 100])
def test_cross_entropy_with_products_in_bfloat16_is_near(rows, monkeypatch):
    monkeypatch.setattr(losses_net, "CHUNK_FLOATS", 40 * 201)
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(rows, 16, generator=generator, requires_grad=True)
    table = torch.randn(201, 16, generator=generator, requires_grad=True)
    targets = torch.randint(1, 201, (rows,), generator=generator)
    wanted = full_cross_entropy(states, table, targets)
    expected = torch.autograd.grad(3 * wanted, (states, table))
    for given in (states, states.bfloat16()):  # as layers under autocast give them
        with torch.autocast("cpu", torch.bfloat16):
            loss = full_cross_entropy(given, table, targets)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, wanted, rtol=5e-3, atol=0)
        found = torch.autograd.grad(3 * loss, (states, table))
        assert not torch.equal(found[1], expected[1])
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == torch.float32
            assert (a - b).norm() < 0.02 * b.norm()
        assert not found[1][0].any()  # padding
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        torch.testing.assert_close(full_cross_entropy(states, table, targets), loss)


@pytest.mark.parametrize("items", [21, 1683])
def test_the_width_of_the_rows_of_logits_changes_nothing(items, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(700, 64, generator=generator, requires_grad=True)
    table = torch.randn(items, 64, generator=generator, requires_grad=True)
    targets = torch.randint(1, items, (700,), generator=generator)
    found = []
    for width in (1, losses_net.ALIGNED):
        monkeypatch.setattr(losses_net, "ALIGNED", width)
        loss = full_cross_entropy(states, table, targets)
        found.append([loss, *torch.autograd.grad(loss, (states, table))])
    assert losses_net.ALIGNED > 1
    assert items % losses_net.ALIGNED
    for plain, aligned in zip(*found, strict=True):
        torch.testing.assert_close(plain, aligned, rtol=1e-6, atol=1e-7)


def test_cross_entropy_survives_huge_scores():
    states, table = torch.full((2, 1), 1e4), torch.tensor([[0.0], [1.0], [-1.0]])
    loss = full_cross_entropy(states, table, torch.tensor([1, 1]))
    assert float(loss) == pytest.approx(0.0)


def test_bpr_and_sampled_softmax_by_hand():
    positive, negative = torch.tensor([1.0, 0.0]), torch.tensor([[0.0, 2.0], [0.0, -torch.inf]])
    assert float(bpr(positive, negative[:, :1])) == pytest.approx(
        (math.log(1 + math.exp(-1)) + math.log(2)) / 2
    )
    first = math.log(math.e + 1 + math.exp(2)) - 1
    assert float(sampled_softmax(positive, negative)) == pytest.approx((first + math.log(2)) / 2)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_dropout_drops_with_its_probability_and_keeps_the_mean(p):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x = torch.ones(333, 601)
        y = dropout(x, p, True)
    assert float((y == 0).float().mean()) == pytest.approx(p, abs=0.004)
    assert float(y.mean()) == pytest.approx(1.0, abs=0.02)
    assert y.unique().tolist() == [0.0, pytest.approx(1 / (1 - p))]
    pairs = ((y[:, :-1] == 0) & (y[:, 1:] == 0)).float().mean()
    assert float(pairs) == pytest.approx(p * p, abs=0.006)  # neighbours are independent


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_dropout_keeps_where_a_draw_of_16_bits_is_not_below_p(dtype):
    x = torch.randn(7, 33, generator=torch.Generator().manual_seed(1)).to(dtype)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        y = dropout(x, 0.25, True)
        torch.manual_seed(0)
        draws = torch.empty(58, dtype=torch.int64).random_(-(2**63), None)  # 231 numbers, 4 a draw
    bits = draws.view(torch.int16)[:231].view(7, 33)
    kept = torch.where(bits.int() >= 0.25 * 65536 - 32768, x * torch.tensor(1 / 0.75, dtype=dtype),
                       torch.zeros((), dtype=dtype))  # fmt: skip
    assert torch.equal(y, kept)


def test_dropout_does_nothing_outside_training_and_masks_the_gradient():
    x = torch.ones(50, requires_grad=True)
    assert dropout(x, 0.5, False) is x
    y = dropout(x, 0.5, True)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_shared_softmax_is_the_sampled_one_with_its_gradients():
    generator = torch.Generator().manual_seed(0)
    u, p, n = (
        torch.randn(k, 3, generator=generator, dtype=torch.float64, requires_grad=True)
        for k in (4, 4, 6)
    )
    same = torch.rand(4, 6, generator=generator) < 0.3
    expected = sampled_softmax((u * p).sum(1), (u @ n.T).masked_fill(same, -torch.inf))
    found = shared_softmax(u, p, n, same)
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(2 * expected, (u, p, n))
    torch.testing.assert_close(torch.autograd.grad(2 * found, (u, p, n)), wanted)
