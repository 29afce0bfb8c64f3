"""Rows of each sequence in another order. Shapes: B batch, L length, W width."""

from __future__ import annotations

from torch import Tensor


def taken(x: Tensor, index: Tensor) -> Tensor:
    """Return ``x[b, index[b, l]]`` of x (B, L, W), index (B, L)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))
