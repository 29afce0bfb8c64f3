"""A tree over the points of users and items, for exploration (HaRec / HERec, arXiv:2411.13865)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData

DEEPEST = 30  # halvings; a path is an int32


@dataclass(frozen=True)
class HierarchyTree(Enhancement):
    """Halves the trained points of all users and items again and again, ``layers`` times.

    Each halving is a balanced 2-means by hyperbolic distance: centres are hyperbolic centroids, and
    the half that is nearer to the first in comparison gets it, so that halves differ by one member
    at most. ``layers=0`` halves while every leaf keeps a member. Training is left as it is.

    The bundle keeps the path of each user and item, by which a request explores (see
    ``models/exploration.py``); the table ``hierarchy`` beside the weights has ``node_id, parent_id,
    layer, users, items``, the members by id.

    Deviations: no points are dealt at random to a full half, as released, so the tree is a
    function of the points and the seed; centres are centroids of the manifold, not means of
    logarithms at the origin.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"points"})
    writes: ClassVar[str] = "hierarchy"  # a table beside the weights

    layers: int = 8
    steps: int = 20  # of 2-means at most, per halving

    def __post_init__(self) -> None:
        if not 0 <= self.layers <= DEEPEST or self.steps < 1:
            raise PlanError(
                f"HierarchyTree(layers={self.layers}, steps={self.steps}): 0 to {DEEPEST} layers, "
                "at least 1 step"
            )

    def inert(self) -> HierarchyTree:
        """Return the part itself: it changes nothing of the model."""
        return replace(self)

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
        from .hierarchy_tree_net import HierarchyTreeHook

        return HierarchyTreeHook(model, data, self.layers, self.steps, seed)
