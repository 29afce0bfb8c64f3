"""Network of xDeepFM (torch)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .click_net import FieldNet

BLOCK_FLOATS = 1 << 22  # products of one block of rows; they are made again in the backward pass


class CIN(nn.Module):
    """``X^k_h = sum_ij W^{k,h}_ij (X^{k-1}_i * X^0_j)``, summed over the width and joined.

    xDeepFM, equations 6 and 7; no activation in between. W^k is (H_k, H_{k-1} F). With
    ``split_half`` the first half of the maps goes to the next layer and the second to the output;
    the last layer gives all.
    """

    def __init__(self, fields: int, maps: Sequence[int], split_half: bool) -> None:
        super().__init__()
        if split_half and any(h % 2 for h in maps[:-1]):
            raise ValueError(f"xDeepFM: cin={tuple(maps)} cannot be split in half; use even widths")
        self.split_half = split_half
        self.weights, self.width, before = nn.ParameterList(), 0, fields
        for number, h in enumerate(maps, start=1):
            w = torch.empty(h, before * fields)
            self.weights.append(nn.Parameter(nn.init.xavier_uniform_(w)))
            split = split_half and number < len(maps)
            before = h // 2 if split else h
            self.width += h // 2 if split else h

    def forward(self, e: Tensor) -> Tensor:
        """Return (B, width) of e (B, F, D), in blocks of rows that bound the memory of products."""
        most = max(w.shape[1] for w in self.weights) * e.shape[2]
        rows = max(1, BLOCK_FLOATS // most)
        if len(e) <= rows:
            return self.block(e)
        run = _remade(self.block) if torch.is_grad_enabled() else self.block
        return torch.cat([run(part) for part in e.split(rows)])

    def block(self, first: Tensor) -> Tensor:
        x, out = first, []
        for number, w in enumerate(self.weights, start=1):
            products = x.unsqueeze(2) * first.unsqueeze(1)  # (B, H, F, D)
            maps = w @ products.flatten(1, 2)  # (B, H_k, D)
            if self.split_half and number < len(self.weights):
                x, kept = maps.chunk(2, dim=1)
            else:
                x = kept = maps
            out.append(kept.sum(2))
        return torch.cat(out, 1)


def _remade(call: Any) -> Any:
    """Return ``call`` without stored intermediate values: the backward pass computes them again."""
    return lambda x: checkpoint(call, x, use_reentrant=False, preserve_rng_state=False)


class XDeepFMNet(FieldNet):
    """``logit = w_0 + sum_i w_i + w . CIN(e) + MLP(vec e)`` (xDeepFM, equation 8)."""

    title = "xDeepFM"

    def make(self, cin: Sequence[int], split_half: bool) -> int:
        self.cin = CIN(self.n_fields, cin, split_half)
        self.cin_out = nn.Linear(self.cin.width, 1, bias=False)
        return self.n_fields * self.dim

    def interact(self, e: Tensor) -> tuple[Tensor, Tensor]:
        return e.flatten(1), self.cin_out(self.cin(e)).squeeze(1)
