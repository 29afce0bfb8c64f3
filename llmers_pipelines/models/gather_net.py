"""Rows of tables and of sequences, with gradients as sums in one pass. Shapes: B batch, L length,
W width, N rows of a table.

torch adds the gradients of looked-up rows one by one; on a CPU these functions give the same bits
several times faster (the order of the sums is that of torch). Elsewhere they are torch's own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

RADIX = 32768  # from here on torch sorts by radix, which is stable; below, equal ids may swap


def taken(x: Tensor, index: Tensor) -> Tensor:
    """Return ``x[b, index[b, l]]`` of x (B, L, W), index (B, L)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.n, ctx.padding = len(table), padding
        return F.embedding(ids, table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (ids,) = ctx.saved_tensors
        width = grad.shape[-1]
        out = grad.new_zeros(ctx.n, width)
        out.index_add_(0, ids.reshape(-1), grad.reshape(-1, width))
        if ctx.padding >= 0:
            out[ctx.padding] = 0
        return out, None, None


def rows(table: Tensor, ids: Tensor, padding: int = -1) -> Tensor:
    """Return ``table[ids]`` (..., W) of table (N, W); row ``padding`` has no gradient."""
    if table.device.type == "cpu":
        return _Rows.apply(table, ids, padding)
    return F.embedding(ids, table, padding if padding >= 0 else None)


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(ids, weights)
        ctx.n = len(table)
        return F.embedding_bag(ids, table, mode="sum", per_sample_weights=weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """The same sum the other way round: for each row of the table its bags, in their order."""
        ids, weights = ctx.saved_tensors
        length = ids.shape[1]
        ids, weights = ids.reshape(-1), weights.reshape(-1)
        if len(ids) < RADIX:
            order = ids.sort().indices
            order = order[weights.index_select(0, order) != 0]
        else:
            kept = weights.nonzero().squeeze(1)
            order = kept.index_select(0, by_value(ids.index_select(0, kept)))
        if not len(order):
            return grad.new_zeros(ctx.n, grad.shape[1]), None, None
        start = ids.new_zeros(ctx.n + 1)
        torch.cumsum(torch.bincount(ids.index_select(0, order), minlength=ctx.n), 0, out=start[1:])
        out = F.embedding_bag(
            torch.div(order, length, rounding_mode="floor"), grad.contiguous(), start[:-1],
            mode="sum", per_sample_weights=weights.index_select(0, order),
        )  # fmt: skip
        return out, None, None


def by_value(ids: Tensor) -> Tensor:
    """Return the stable order of ``ids`` (n,) >= 0: one sort of keys with the place at the end."""
    bits = max(1, (len(ids) - 1).bit_length())
    key = (ids.numpy() << bits) | np.arange(len(ids))
    key.sort()
    return torch.from_numpy(key & ((1 << bits) - 1))


def pooled(table: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """Return ``sum_l weights[b, l] table[ids[b, l]]`` (B, W); weights (B, L) have no gradient."""
    if table.device.type == "cpu" and not weights.requires_grad:
        return _Pooled.apply(table, ids, weights)
    return F.embedding_bag(ids, table, mode="sum", per_sample_weights=weights)
