"""Network of FiBiNET (torch)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .click_net import FieldNet

BILINEAR = ("all", "each", "interaction")


class SENET(nn.Module):
    """``v_i = a_i e_i`` with ``a = ReLU(W_2 ReLU(W_1 z))``, ``z_i = mean(e_i)``.

    FiBiNET, equations 3 to 5; both layers without bias, W_1 shrinks the fields by ``reduction``.
    """

    def __init__(self, fields: int, reduction: int) -> None:
        super().__init__()
        inner = max(1, fields // reduction)
        self.squeeze = nn.Linear(fields, inner, bias=False)
        self.excite = nn.Linear(inner, fields, bias=False)

    def forward(self, e: Tensor) -> Tensor:
        """Return v (B, fields, dim) of e."""
        a = torch.relu(self.excite(torch.relu(self.squeeze(e.mean(2)))))
        return e * a.unsqueeze(2)


class Bilinear(nn.Module):
    """``p_ij = (e_i W) * e_j`` for all i < j (FiBiNET, equations 6 to 8).

    ``kind`` says how many W there are: "all" 1, "each" one per field i, "interaction" one per pair.
    """

    def __init__(self, fields: int, dim: int, kind: str) -> None:
        super().__init__()
        if kind not in BILINEAR:
            raise ValueError(f"unknown bilinear {kind!r} of FiBiNET: use one of {BILINEAR}")
        self.kind = kind
        first, second = torch.triu_indices(fields, fields, 1)
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("second", second, persistent=False)
        count = {"all": 1, "each": fields, "interaction": len(first)}[kind]
        self.weight = nn.Parameter(torch.empty(count, dim, dim))
        bound = (6 / (2 * dim)) ** 0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, e: Tensor) -> Tensor:
        """Return p (B, pairs, dim) of e (B, fields, dim)."""
        if self.kind == "all":
            left = (e @ self.weight[0])[:, self.first]
        elif self.kind == "each":
            left = torch.einsum("bfd,fdk->bfk", e, self.weight)[:, self.first]
        else:
            left = torch.einsum("bpd,pdk->bpk", e[:, self.first], self.weight)
        return left * e[:, self.second]


class FiBiNETNet(FieldNet):
    """``logit = w_0 + sum_i w_i + MLP([p(e) ; q(SENET(e))])``, p and q bilinear pairs."""

    title = "FiBiNET"

    def make(self, reduction: int, bilinear: str) -> int:
        if self.n_fields < 2:
            raise ValueError("FiBiNET needs at least two fields, found one")
        self.senet = SENET(self.n_fields, reduction)
        self.plain = Bilinear(self.n_fields, self.dim, bilinear)
        self.weighted = Bilinear(self.n_fields, self.dim, bilinear)
        return self.n_fields * (self.n_fields - 1) * self.dim

    def interact(self, e: Tensor) -> tuple[Tensor, float]:
        pairs = torch.cat([self.plain(e), self.weighted(self.senet(e))], 1)
        return pairs.flatten(1), 0.0
