"""Network of DCN-V2 (torch)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .click_net import FieldNet


class Cross(nn.Module):
    """``x_{l+1} = x_0 * (W_l x_l + b_l) + x_l`` of width n (DCN-V2, equation 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, first: Tensor, x: Tensor) -> Tensor:
        """Return x_{l+1} of x_0 and x_l, all (B, n)."""
        return torch.addcmul(x, first, self.linear(x))


class LowRankCross(nn.Module):
    """``sum_i G_i(x) x_0 * (U_i g(C_i g(V_i^T x)) + b) + x`` (DCN-V2, equations 3 to 5).

    E experts of rank r; G = softmax of a linear layer of x (1 where E = 1); g = tanh.
    """

    def __init__(self, width: int, rank: int, experts: int) -> None:
        super().__init__()
        self.inner = nn.Parameter(torch.empty(experts, width, rank))  # V
        self.core = nn.Parameter(torch.empty(experts, rank, rank))  # C
        self.outer = nn.Parameter(torch.empty(experts, rank, width))  # U^T
        for p in (self.inner, self.core, self.outer):
            bound = (6 / sum(p.shape[1:])) ** 0.5
            nn.init.uniform_(p, -bound, bound)
        self.bias = nn.Parameter(torch.zeros(width))
        self.gate = nn.Linear(width, experts) if experts > 1 else None

    def forward(self, first: Tensor, x: Tensor) -> Tensor:
        low = torch.tanh(torch.einsum("bn,enr->ber", x, self.inner))
        low = torch.tanh(torch.einsum("ber,ers->bes", low, self.core))
        if self.gate is not None:
            low = low * torch.softmax(self.gate(x), 1).unsqueeze(2)  # the gates sum to 1: b stays
        return torch.addcmul(x, first, torch.einsum("bes,esn->bn", low, self.outer) + self.bias)


class DCNv2Net(FieldNet):
    """``logit = w . [x_L ; MLP(x_0)]`` (parallel) or ``MLP(x_L)`` (stacked), x_0 = vec e."""

    title = "DCNv2"
    first_order = False
    final = (*FieldNet.final, "cross_out.")

    def make(self, crosses: int, rank: int, experts: int, structure: str) -> int:
        if structure not in ("parallel", "stacked"):
            raise ValueError(
                f"unknown structure {structure!r} of DCNv2: use 'parallel' or 'stacked'"
            )
        if experts > 1 and not rank:
            raise ValueError(f"DCNv2 with experts={experts} needs a rank above 0, e.g. rank=32")
        width = self.n_fields * self.dim
        self.crosses = nn.ModuleList(
            LowRankCross(width, rank, experts) if rank else Cross(width) for _ in range(crosses)
        )
        self.cross_out = nn.Linear(width, 1, bias=False) if structure == "parallel" else None
        return width

    def cross(self, first: Tensor) -> Tensor:
        """Return x_L (B, n) of x_0 (B, n)."""
        x = first
        for layer in self.crosses:
            x = layer(first, x)
        return x

    def interact(self, e: Tensor) -> tuple[Tensor, Tensor | float]:
        first = e.flatten(1)
        x = self.cross(first)
        if self.cross_out is None:
            return x, 0.0
        return first, self.cross_out(x).squeeze(1)

    def states(self, e: Tensor) -> Tensor:
        first = e.flatten(1)
        x = self.cross(first)
        if self.cross_out is None:
            return self.hidden(x)
        return torch.cat([x, self.hidden(first)], 1)
