"""A GRU layer whose gradient is one product per weight. Shapes: B batch, L length, H width of h.

``r = s(W_ir x + b_ir + W_hr h + b_hr)``, ``z = s(W_iz x + b_iz + W_hz h + b_hz)``,
``n = tanh(W_in x + b_in + r (W_hn h + b_hn))``, ``h' = (1 - z) n + z h`` (Cho et al.,
arXiv:1406.1078, in the form of ``torch.nn.GRU``, s the logistic function). torch adds up the
gradients of weights step by step; here what all steps need is multiplied at once, and only what
depends on the step before stays in the loop.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _Recurrence(torch.autograd.Function):
    """States (L, B, H) of inputs (L, B, D) from zero; weights as in ``nn.GRU``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_in: Tensor, w_hidden: Tensor, b_in: Tensor, b_hidden: Tensor,
        half: bool,
    ) -> Tensor:  # fmt: skip
        ctx.half = half
        length, batch, width = *x.shape[:2], w_hidden.shape[1]
        given = _product(x.flatten(0, 1), w_in.T, half).add_(b_in).view(length, batch, -1)
        gates, fresh = given.split([2 * width, width], 2)
        old = x.new_empty(length, batch, 3 * width)  # W_h h + b_h
        states = x.new_zeros(length + 1, batch, width)
        columns = w_hidden.T.bfloat16() if half else w_hidden.T
        for t in range(length):
            h, out = states[t], states[t + 1]
            if half:
                own = torch.add(h.bfloat16() @ columns, b_hidden, out=old[t])
            else:
                own = torch.addmm(b_hidden, h, columns, out=old[t])
            both = gates[t].add_(own[:, : 2 * width]).sigmoid_()
            r, z = both.split(width, 1)
            n = fresh[t].addcmul_(r, own[:, 2 * width :]).tanh_()
            torch.sub(h, n, out=out).mul_(z).add_(n)
        ctx.save_for_backward(x, w_in, w_hidden, given, old[..., 2 * width :], states)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w_in, w_hidden, given, own, states = ctx.saved_tensors
        length, batch, width = grad.shape
        r, z, n = given.split(width, 2)
        by_new = (1 - n.square()).mul_(1 - z)  # d n before tanh, by h'
        by_update = (states[:-1] - n).mul_(z).mul_(1 - z)
        by_reset = (1 - r).mul_(r).mul_(own)  # by n before tanh
        # [n, r, z of the input | n of the state]: both products read neighbouring columns
        made = x.new_empty(length, batch, 4 * width)
        new, reset, update, inner = made.split(width, 2)
        d_h = x.new_zeros(batch, width)
        weight = w_hidden.bfloat16() if ctx.half else w_hidden
        for t in reversed(range(length)):
            d_h.add_(grad[t])
            torch.mul(d_h, by_new[t], out=new[t])
            torch.mul(d_h, by_update[t], out=update[t])
            torch.mul(new[t], by_reset[t], out=reset[t])
            torch.mul(new[t], r[t], out=inner[t])
            if ctx.half:
                d_h.mul_(z[t]).add_(made[t, :, width:].bfloat16() @ weight)
            else:
                d_h.mul_(z[t]).addmm_(made[t, :, width:], weight)
        flat = made.flatten(0, 1)
        outer, hidden = flat[:, : 3 * width], flat[:, width:]
        total = flat.sum(0)
        return (
            _product(outer, _rolled(w_in, -width), ctx.half).view_as(x),
            _rolled(_product(outer.T, x.flatten(0, 1), ctx.half), width),
            _product(hidden.T, states[:-1].flatten(0, 1), ctx.half),
            _rolled(total[: 3 * width], width), total[width:], None,
        )  # fmt: skip


def _product(a: Tensor, b: Tensor, half: bool) -> Tensor:
    return (a.bfloat16() @ b.bfloat16()).float() if half else a @ b


def _rolled(weight: Tensor, width: int) -> Tensor:
    """Return rows (n, r, z) as (r, z, n), or with ``width`` < 0 the other way round."""
    return torch.roll(weight, -width, 0)


def gru(layer: nn.GRU, x: Tensor) -> Tensor:
    """Return the states (B, L, H) that one layer of ``nn.GRU`` (batch first) gives from zero.

    On a CPU under autocast to bfloat16, where torch has no such layer, products are made in
    bfloat16, gates and states in float32. Otherwise it is torch's own.
    """
    half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    if x.device.type != "cpu" or not half:
        return layer(x)[0]
    with torch.autocast("cpu", enabled=False):
        return recurrence(layer, x, half=True)


def recurrence(layer: nn.GRU, x: Tensor, half: bool) -> Tensor:
    """Return the states (B, L, H) by the products of this module, in bfloat16 if ``half``."""
    weights = layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0
    steps = x.transpose(0, 1).contiguous().to(weights[0].dtype)
    return _Recurrence.apply(steps, *weights, half).transpose(0, 1)
