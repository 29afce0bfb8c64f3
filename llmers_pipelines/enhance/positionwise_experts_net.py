"""A mixture of linear experts over item vectors, with offsets that differ by position.

Shapes: N items, E vector width, D width, G experts, T positions, B batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PositionwiseExperts(nn.Module):
    """``y = sum_g a_g(z) W_g (drop(z) - b_gt)``, ``a = softmax(V z)`` (TedRec, after UniSRec).

    V starts at zero, so that gates start equal. While training, and with ``noise``, gates are
    ``softmax(V z + n softplus(U z) + 0.01 n)`` with n standard normal per value. One position,
    ``positions=1``, is the whitening mixture of UniSRec. The sum is taken in two parts, because
    offsets do not hang on the item: ``of_items`` (per item) and ``of_positions`` (per position and
    expert), joined by ``placed``.
    """

    def __init__(
        self, width: int, dim: int, positions: int, *, experts: int, dropout: float, noise: bool
    ) -> None:
        super().__init__()
        self.dropout, self.noise = dropout, noise
        self.maps = nn.Parameter(torch.randn(experts, width, dim) * width**-0.5)
        self.offsets = nn.Parameter(torch.zeros(experts, positions, width))
        self.gate = nn.Parameter(torch.zeros(width, experts))
        self.gate_noise = nn.Parameter(torch.zeros(width, experts))

    def start_at(self, vectors: Tensor, std: float) -> None:
        """Scale the maps such that y starts with standard deviation ``std`` over real vectors."""
        real = vectors[vectors.any(1)]
        with torch.no_grad():
            was, self.training = self.training, False
            found = float(self.of_items(real)[0].std()) if len(real) > 1 else 0.0
            self.training = was
            if found > 0:
                self.maps.mul_(std / found)

    def of_items(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return (``sum_g a_g W_g drop(z)`` (U, D), gates a (U, G)) of vectors z (U, E)."""
        logits = z @ self.gate
        if self.training and self.noise:
            spread = F.softplus(z @ self.gate_noise) + 0.01
            logits = logits + torch.randn_like(logits) * spread
        gates = logits.softmax(-1)
        kept = F.dropout(z, self.dropout, self.training)
        mapped = torch.einsum("ue,ged->gud", kept, self.maps)
        return torch.einsum("gud,ug->ud", mapped, gates), gates

    def of_positions(self) -> Tensor:
        """Return ``W_g b_gt`` (T, G, D)."""
        return torch.einsum("gte,ged->tgd", self.offsets, self.maps)


def placed(own: Tensor, gates: Tensor, offsets: Tensor) -> Tensor:
    """Return y (B, T, D): ``own`` (B, T, D) less the gated (B, T, G) first T ``offsets``."""
    return own - torch.einsum("btg,tgd->btd", gates, offsets[: own.shape[1]])
