"""Network of MMoE (torch)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from .scenario_net import Experts, GroupedMLP, ScenarioNet, gate

if TYPE_CHECKING:
    from .batches import CtrBatch


class MMoENet(ScenarioNet):
    """``logit_s = tower_s(sum_e softmax(W_s x)_e Expert_e(x))`` (MMoE, equations 5 to 7)."""

    title = "MMoE"

    def make(self, experts: int, tower: Sequence[int], gate_dropout: float, balance: bool) -> int:
        own = self._arguments
        self.p = gate_dropout
        self.experts = experts
        self.gates = nn.Linear(self.width, self.n_scenarios * experts, bias=False)
        self.towers = GroupedMLP(
            self.n_scenarios, [own["mlp"][-1], *tower], own["act"], own["dropout"], out=1
        )
        return self.width

    def top(self, width: int) -> Experts:
        own = self._arguments
        return Experts(width, self.experts, own["mlp"], own["act"], own["dropout"])

    def mixed(self, x: Tensor, added: Tensor | None) -> Tensor:
        """Return (B, S, out): the experts' outputs for x (B, width), mixed for each scenario."""
        scores = self.gates(x).unflatten(1, (self.n_scenarios, self.experts))
        return gate(scores, self.p, self.training) @ self.tower(x, added)

    def scenario_logits(self, batch: CtrBatch) -> Tensor:
        added, logit = self.columns(self.feature_columns(batch))
        mixed = self.mixed(self.shared_features(batch), added)
        out = self.towers(mixed).squeeze(2)
        return out + logit if isinstance(logit, float) else out + logit.unsqueeze(1)
