"""Network of AutoInt (torch)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .click_net import FieldNet
from .dropout_net import dropout


class Interacting(nn.Module):
    """``ReLU(concat_h sum_k a_h(m, k) V_h e_k + W_res e_m)`` (AutoInt, equations 5 to 8).

    ``a_h(m, .)`` = softmax over the fields k of ``<Q_h e_m, K_h e_k>``; ``scaled`` divides it by
    the square root of a head's width, ``residual`` off leaves W_res out.
    """

    def __init__(
        self, width: int, out: int, heads: int, p: float, scaled: bool, residual: bool
    ) -> None:
        super().__init__()
        if out % heads:
            raise ValueError(f"AutoInt: attention={out} is not a multiple of heads={heads}")
        self.heads, self.p = heads, p
        self.scale = (out // heads) ** -0.5 if scaled else 1.0
        self.projections = nn.Linear(width, 3 * out, bias=False)  # Q, K, V
        self.residual = nn.Linear(width, out, bias=False) if residual else None

    def forward(self, e: Tensor) -> Tensor:
        """Return (B, fields, out) of e (B, fields, width)."""
        maps = [self.projections, *([self.residual] if self.residual is not None else [])]
        made = F.linear(e, torch.cat([x.weight for x in maps]))  # one product reads e once
        width = len(self.projections.weight) // 3
        *three, rest = made.split(width, 2) if len(maps) > 1 else (*made.split(width, 2), None)
        q, k, v = (
            x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in three
        )  # (B, heads, fields, out / heads)
        # (B, heads, k, m): over an axis that is not the last one, a softmax takes half the time
        scores = k @ q.mT
        weights = torch.softmax(scores if self.scale == 1 else scores * self.scale, 2)
        out = (dropout(weights, self.p, self.training).mT @ v).transpose(1, 2).flatten(2)
        return torch.relu(out if rest is None else out + rest)


class AutoIntNet(FieldNet):
    """``logit = w_0 + sum_i w_i + w . vec(e^L) + MLP(vec e)``, e^L after L attention layers."""

    title = "AutoInt"
    final = (*FieldNet.final, "out.")

    def make(
        self, layers: int, heads: int, attention: int, attention_dropout: float, scaled: bool,
        residual: bool,
    ) -> int:  # fmt: skip
        widths = [self.dim, *[attention] * layers]
        self.layers = nn.Sequential(
            *(
                Interacting(w, attention, heads, attention_dropout, scaled, residual)
                for w in widths[:-1]
            )
        )
        self.out = nn.Linear(self.n_fields * widths[-1], 1, bias=False)
        return self.n_fields * self.dim

    def interact(self, e: Tensor) -> tuple[Tensor, Tensor]:
        return e.flatten(1), self.out(self.layers(e).flatten(1)).squeeze(1)

    def states(self, e: Tensor) -> Tensor:
        return torch.cat([self.layers(e).flatten(1), self.hidden(e.flatten(1))], 1)
