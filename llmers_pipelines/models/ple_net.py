"""Network of PLE (torch). B rows, S scenarios; group S is the shared one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .scenario_net import Experts, Grouped, GroupedMLP, ScenarioNet, gate

if TYPE_CHECKING:
    from .batches import CtrBatch


class Gates(nn.Module):
    """Mixes the experts of a level for each scenario and, unless it is the last, for the shared.

    Experts stand as ``private`` ones of scenario 1, of scenario 2, ..., then the ``shared`` ones. A
    scenario sees its own and the shared ones (PLE, equations 2 to 4), the shared gate all of them.
    """

    def __init__(
        self, width: int, scenarios: int, private: int, shared: int, last: bool, p: float
    ) -> None:
        super().__init__()
        self.groups, self.p = scenarios + (not last), p
        seen = torch.zeros(self.groups, scenarios * private + shared, dtype=torch.bool)
        seen[:, scenarios * private :] = True
        for s in range(scenarios):
            seen[s, s * private : (s + 1) * private] = True
        if not last:
            seen[scenarios] = True
        self.register_buffer("seen", seen, persistent=False)
        self.weights = Grouped(self.groups, width, seen.shape[1])

    def forward(self, x: Tensor, experts: Tensor) -> Tensor:
        """Return (B, groups, out) of gate inputs x (B, >= groups, width), experts (B, E, out)."""
        scores = self.weights(x[:, : self.groups])
        return gate(scores, self.p, self.training, self.seen) @ experts


class PLENet(ScenarioNet):
    """Levels of gated experts, then ``logit_s = tower_s(state_s)``."""

    title = "PLE"

    def make(
        self, levels: int, private: int, shared: int, tower: Sequence[int], gate_dropout: float,
        balance: bool,
    ) -> int:  # fmt: skip
        own = self._arguments
        groups, out = self.n_scenarios + 1, own["mlp"][-1]
        self.experts = self.n_scenarios * private + shared
        owner = [s for s in range(self.n_scenarios) for _ in range(private)]
        owner += [self.n_scenarios] * shared
        self.register_buffer("owner", torch.tensor(owner), persistent=False)
        self.gates = nn.ModuleList(
            Gates(
                out if level else self.width, self.n_scenarios, private, shared,
                level == levels - 1, gate_dropout,
            )
            for level in range(levels)
        )  # fmt: skip
        self.later = nn.ModuleList(
            GroupedMLP(self.experts, [out, *own["mlp"]], own["act"], own["dropout"])
            for _ in range(levels - 1)
        )
        self.towers = GroupedMLP(self.n_scenarios, [out, *tower], own["act"], own["dropout"], out=1)
        self.groups = groups
        return self.width

    def top(self, width: int) -> Experts:
        own = self._arguments
        return Experts(width, self.experts, own["mlp"], own["act"], own["dropout"])

    def extracted(self, x: Tensor, added: Tensor | None) -> Tensor:
        """Return the states (B, S, out) of the scenarios after the last level, of x (B, width)."""
        states = x.unsqueeze(1).expand(-1, self.groups, -1)
        states = self.gates[0](states, self.tower(x, added))
        for gates, experts in zip(self.gates[1:], self.later, strict=True):
            states = gates(states, experts(states[:, self.owner]))
        return states

    def scenario_logits(self, batch: CtrBatch) -> Tensor:
        added, logit = self.columns(self.feature_columns(batch))
        states = self.extracted(self.shared_features(batch), added)
        out = self.towers(states).squeeze(2)
        return out + logit if isinstance(logit, float) else out + logit.unsqueeze(1)
