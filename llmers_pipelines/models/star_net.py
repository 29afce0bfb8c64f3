"""Network of STAR (torch). B rows, S scenarios."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .ctr_net import Dropout, Tower, activation
from .scenario_net import ScenarioNet

if TYPE_CHECKING:
    from .batches import CtrBatch

EPS, MOMENTUM = 1e-5, 0.1


class PartitionedNorm(nn.Module):
    """``gamma gamma_s (x - mean_s) / sqrt(var_s + eps) + beta + beta_s`` (STAR, equation 5).

    Moments are those of a batch's rows of scenario s; in evaluation, of what training has seen.
    """

    def __init__(self, width: int, scenarios: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.own_gamma = nn.Parameter(torch.zeros(scenarios, width))  # gamma_s - 1
        self.own_beta = nn.Parameter(torch.zeros(scenarios, width))
        self.register_buffer("mean", torch.zeros(scenarios, width))
        self.register_buffer("var", torch.ones(scenarios, width))

    def forward(self, x: Tensor, s: int, learn: bool) -> Tensor:
        """Return the rows x (B, width), all of scenario ``s`` (from 0), normalised."""
        x = F.batch_norm(
            x, self.mean[s], self.var[s], training=learn and len(x) > 1, momentum=MOMENTUM, eps=EPS
        )  # one row has no variance: it is normalised by what was seen so far
        scale = self.gamma * (1 + self.own_gamma[s])
        return torch.addcmul(self.beta + self.own_beta[s], x, scale)


class StarLayer(nn.Module):
    """``x (W * W_s) + b + b_s`` with the shared layer ``shared`` (STAR, equation 8)."""

    def __init__(self, shared: nn.Linear, scenarios: int) -> None:
        super().__init__()
        self.shared = shared
        self.weight = nn.Parameter(torch.zeros(scenarios, *shared.weight.shape))  # W_s - 1
        self.bias = nn.Parameter(torch.zeros(scenarios, len(shared.bias)))

    def forward(self, x: Tensor, s: int) -> Tensor:
        weight = self.shared.weight * (1 + self.weight[s])
        return F.linear(x, weight, self.shared.bias + self.bias[s])


class StarTower(nn.Module):
    """Star layers to one logit. ``first`` is the shared part of the first one."""

    def __init__(
        self, width: int, layers: Sequence[int], act: str, p: float, scenarios: int
    ) -> None:
        super().__init__()
        widths = [width, *layers, 1]
        self.layers = nn.ModuleList(
            StarLayer(nn.Linear(a, b), scenarios) for a, b in pairwise(widths)
        )
        self.acts = nn.ModuleList(activation(act, b) for b in layers)
        self.drop = Dropout(p)

    @property
    def first(self) -> nn.Linear:
        return self.layers[0].shared

    def forward(self, x: Tensor, s: int, added: Tensor | None = None) -> Tensor:
        """Return logits (B,) of x (B, width) in scenario ``s``; ``added`` is a summand of h."""
        for number, layer in enumerate(self.layers):
            x = layer(x, s)
            if added is not None and number == 0:
                x = x + added
            if number < len(self.acts):
                x = self.drop(self.acts[number](x))
        return x.squeeze(1)


class STARNet(ScenarioNet):
    """``logit_s = star_s(norm_s(x)) + auxiliary([v_s ; x])``, each row in its own scenario."""

    title = "STAR"

    def make(self, auxiliary: Sequence[int], balance: bool) -> int:
        own = self._arguments
        self.norm = PartitionedNorm(self.width, self.n_scenarios)
        self.scenario = nn.Embedding(self.n_scenarios, self.dim)
        nn.init.normal_(self.scenario.weight, std=own["std"])
        self.auxiliary = Tower(self.dim + self.width, auxiliary, own["act"], own["dropout"])
        return self.width

    def top(self, width: int) -> StarTower:
        own = self._arguments
        return StarTower(width, own["mlp"], own["act"], own["dropout"], self.n_scenarios)

    def in_scenario(self, x: Tensor, s: int, added: Tensor | None, learn: bool) -> Tensor:
        """Return the logits (B,) of x (B, width) in scenario ``s`` (from 0)."""
        domain = self.scenario.weight[s].expand(len(x), -1)
        star = self.tower(self.norm(x, s, learn), s, added)
        return star + self.auxiliary(torch.cat([domain, x], 1))

    def _logit(self, batch: CtrBatch) -> Tensor:
        """Return (B,); each scenario's net sees its own rows, and those of an unknown scenario."""
        x = self.shared_features(batch)
        added, logit = self.columns(self.feature_columns(batch))
        code, out = self.scenarios(batch), x.new_zeros(len(x))
        for number in range(self.n_scenarios):
            for wanted, learn in ((number + 1, self.training), (0, False)):
                rows = (code == wanted).nonzero().squeeze(1)
                if len(rows):
                    part = None if added is None else added[rows]
                    z = self.in_scenario(x[rows], number, part, learn)
                    out = out.index_add(0, rows, (z * self.which[wanted, number]).to(out.dtype))
        return out + logit
