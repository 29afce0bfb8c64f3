"""Users learn from similar users (LLM-ESR's self-distillation, arXiv:2405.20646)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class NeighbourDistillation(Enhancement):
    """``weight * MSE(user vector, sg[mean of the vectors of its n most similar users])``.

    ``similar`` is a node of rows user_id, other_id, rank. ``refresh="epoch"`` encodes all users
    once per epoch and reads the neighbours' vectors from there; ``"step"`` encodes the neighbours
    with the current weights in every step, as the paper does, at many times the cost. Users
    without neighbours have no term. Nothing of it is served.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"user_state", "extra_loss"})

    similar: Node | None = None
    n: int = 10
    weight: float = 0.1
    refresh: Literal["epoch", "step"] = "epoch"

    def __post_init__(self) -> None:
        if self.similar is None:
            raise PlanError("NeighbourDistillation needs `similar`, a node of similar users")
        if self.refresh not in ("epoch", "step"):
            raise PlanError(
                f"NeighbourDistillation: refresh is {self.refresh!r}; use 'epoch' or 'step'"
            )

    def inert(self) -> NeighbourDistillation:
        """Return a part whose loss has no weight."""
        return replace(self, weight=0.0)

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
        from .neighbour_distillation_net import NeighbourHook, neighbour_lists

        lists = neighbour_lists(inputs[self.similar], data.users, self.n, self.similar.name)
        return NeighbourHook(lists, data, self.weight, every_step=self.refresh == "step")
