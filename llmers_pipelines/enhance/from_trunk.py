"""A network that starts from one that was pretrained whole (CTRL, FLIP)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class FromTrunk(Enhancement):
    """Overwrite the initial weights below the last linear layers; all stay trainable.

    ``source`` publishes the weights of the same network by name (``Tune(FieldAlignment(...))``).
    Nothing else changes: first-order weights, the last layers and other parts keep their ordinary
    start. ``share`` is how much of a start comes from there: 1 loads the weights as they are, 0
    leaves all as it was, between them is a mean of both.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"trunk"})

    source: Node | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.source is None:
            raise PlanError("FromTrunk needs `source`, a node of pretrained weights")
        if not 0 <= self.share <= 1:
            raise PlanError(f"FromTrunk(share={self.share}): a share in [0, 1]")

    def inert(self) -> FromTrunk:
        """Return a part that loads nothing."""
        return replace(self, share=0.0)

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> None:
        from .from_trunk_net import load_trunk

        source: Any = self.source
        load_trunk(model, inputs[source].arrays, self.share, source.name)
