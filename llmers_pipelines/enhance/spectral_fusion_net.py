"""Fusion of ids and texts in the frequency domain. Shapes: B batch, L length, T the longest
history, N items, D width, G experts.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from .positionwise_experts_net import PositionwiseExperts, placed


def spectral_product(x: Tensor, y: Tensor) -> Tensor:
    """Return ``irFFT(rFFT(x) rFFT(y))`` along axis 1, "ortho": the circular convolution of x and y
    (B, T, D) over sqrt(T).
    """
    both = torch.fft.rfft(x, dim=1, norm="ortho") * torch.fft.rfft(y, dim=1, norm="ortho")
    return torch.fft.irfft(both, n=x.shape[1], dim=1, norm="ortho")


def from_the_first(ids: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return (ids (B, T), place int64 (B, L)): left-padded ids (B, L) moved to column 0.

    ``place`` is the new column of each old one (0 for padding).
    """
    start = (ids > 0).long().argmax(1)  # of a row of padding alone: 0, which moves nothing
    old = torch.arange(length, device=ids.device) + start[:, None]  # (B, T)
    inside = old < ids.shape[1]
    moved = ids.gather(1, old.clamp(max=ids.shape[1] - 1)) * inside
    place = (torch.arange(ids.shape[1], device=ids.device) - start[:, None]).clamp(min=0)
    return moved, place


class Spectrum(nn.Module):
    """The filter and the gates: ``2 (C1 sigmoid(g1 C1) + C2 sigmoid(g2 C2))``."""

    def __init__(self, dim: int, length: int, filter_std: float = 0.0) -> None:
        super().__init__()
        start = torch.randn(length // 2 + 1, dim, 2) * filter_std
        start[..., 0] += 1
        self.filter = nn.Parameter(start)  # real and imaginary parts
        self.first, self.second = nn.Linear(dim, 1), nn.Linear(dim, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y (B, T, D) with zeros behind the newest item; returns (B, T, D)."""
        spectrum = torch.fft.rfft(x, dim=1, norm="ortho") * torch.view_as_complex(self.filter)
        one = torch.fft.irfft(spectrum, n=x.shape[1], dim=1, norm="ortho")
        two = spectral_product(x, y)
        gated = one * torch.sigmoid(self.first(one)) + two * torch.sigmoid(self.second(two))
        return 2 * gated

    def history(self, x: Tensor, ids: Tensor, length: int, text: Any) -> Tensor:
        """Return (B, L, D) of left-padded vectors x (B, L, D); ``text(ids (B, T))`` gives Y."""
        if ids.shape[1] > length:
            raise ValueError(f"history of length {ids.shape[1]}, at most max_len = {length}")
        moved, place = from_the_first(ids, length)
        back = place[..., None].expand_as(x)
        real = (ids > 0)[..., None]
        first = torch.zeros(len(ids), length, x.shape[2], dtype=x.dtype, device=x.device)
        first = first.scatter_add(1, back, x * real)
        return self(first, text(moved)).gather(1, back) * real


class SpectralFusionHook(nn.Module):
    """``history`` with frozen text vectors and their adapter."""

    def __init__(
        self, vectors: Tensor, dim: int, length: int, *, experts: int, dropout: float, noise: bool,
        filter_std: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.length = length
        self.register_buffer("vectors", vectors, persistent=False)  # frozen, not stored
        self.experts = PositionwiseExperts(
            vectors.shape[1], dim, length, experts=experts, dropout=dropout, noise=noise
        )
        self.spectrum = Spectrum(dim, length, filter_std)

    def text(self, ids: Tensor) -> Tensor:
        """Return Y (B, T, D) of ids (B, T). An item that occurs twice is drawn for once."""
        found, at = ids.unique(return_inverse=True)
        with self.stream() if self.training else nullcontext():  # type: ignore[operator]
            own, gates = self.experts.of_items(self.vectors[found])
        known = self.vectors[found].any(1)  # false for padding and for items without a text
        y = placed(own[at], gates[at], self.experts.of_positions())
        return y * known[at][..., None]

    def history(self, model: Any, nxt: Any, batch: Any) -> Tensor:
        return self.spectrum.history(nxt(batch), batch.items, self.length, self.text)

    def fold(self, model: Any) -> ServedSpectralFusion:
        own, gates = self.experts.of_items(self.vectors)
        served = ServedSpectralFusion(
            n_items=len(own) - 1, dim=own.shape[1], length=self.length, experts=gates.shape[1]
        ).to(own.device)
        known = self.vectors.any(1)[:, None]
        served.text.copy_(own * known)
        served.gates.copy_(gates * known)
        served.offsets.copy_(self.experts.of_positions())
        served.spectrum.load_state_dict(self.spectrum.state_dict())
        return served


class ServedSpectralFusion(nn.Module):
    """The fusion over plain tables of items and of positions."""

    def __init__(self, *, n_items: int, dim: int, length: int, experts: int) -> None:
        super().__init__()
        self.config = {"n_items": n_items, "dim": dim, "length": length, "experts": experts}
        self.length = length
        self.register_buffer("text", torch.zeros(n_items + 1, dim))
        self.register_buffer("gates", torch.zeros(n_items + 1, experts))
        self.register_buffer("offsets", torch.zeros(length, experts, dim))
        self.spectrum = Spectrum(dim, length)

    def _text(self, ids: Tensor) -> Tensor:
        return placed(self.text[ids], self.gates[ids], self.offsets)

    def history(self, model: Any, nxt: Any, batch: Any) -> Tensor:
        return self.spectrum.history(nxt(batch), batch.items, self.length, self._text)
