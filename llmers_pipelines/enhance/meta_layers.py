"""Layers whose weights a network writes from hidden states (LLM4MSR, CIKM 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class MetaLayers(Enhancement):
    """Two meta networks: one writes layers for each user, one for each scenario.

    ``W_k = reshape(MLP_w(h))``, ``b_k = MLP_b(h)``, and a stack of ``layers`` of them is
    ``z_k = z_(k-1) + gelu(z_(k-1) W_k + b_k)`` with z_0 = D x of ``width`` values. At the bottom,
    with the state h of the user, ``x <- x + U (z_K - z_0)``; beside the backbone's towers, with
    that of the scenario, ``logit <- logit + v (z_K - z_0)`` on the same x. D, U and v have no bias.
    The last layers of all MLPs start at zero, so that step 0 is the backbone; a ReLU would stay
    there, since its slope at 0 is 0. ``scale`` multiplies both; 0 leaves the backbone.

    h is standardised per dimension. A user without a state has the mean of those who trained in
    the row's scenario (of all, where it is unknown). What is served are the weights of each user
    and scenario; neither states nor meta networks.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"shared_features", "logit"})

    user: Node | None = None
    scenario: Node | None = None
    width: int = 8
    layers: int = 1
    hidden: int = 32  # of the meta networks
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.user is None and self.scenario is None:
            raise PlanError("MetaLayers needs `user` or `scenario`, a node of hidden states")
        if min(self.width, self.layers, self.hidden) < 1:
            raise PlanError("MetaLayers: width, layers and hidden are at least 1")

    def inert(self) -> MetaLayers:
        """Return a part that adds nothing to features and logits."""
        return replace(self, scale=0.0)

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
        from .meta_layers_net import MetaHook, scenario_states, user_states

        user = scenario = None
        if self.user is not None:
            user = user_states(inputs[self.user], data, self.user.name)
        if self.scenario is not None:
            scenario = scenario_states(inputs[self.scenario], data, self.scenario.name)
        return MetaHook(user, scenario, model.width, self)
