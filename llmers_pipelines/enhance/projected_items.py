"""Items as frozen vectors behind one map in and one map out (SLMRec, arXiv:2405.17890)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class ProjectedItems(Enhancement):
    """A history reads ``U z_i + b``; a target scores ``(D h) . z_i``, D without a bias.

    z_i is the frozen vector of ``source``, U and D are trained. ``(D h) . z = h . (D^T z)``, so
    both sides fold into plain tables. An item without a vector has the mean of the others. Both
    sides start with the standard deviation of the table that they replace.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"item_input", "item_output", "item_table"})

    source: Node | None = None

    def __post_init__(self) -> None:
        if self.source is None:
            raise PlanError("ProjectedItems needs `source`, a node of item vectors")

    def inert(self) -> None:
        """Return None: the vectors take the place of the table and have no weight."""

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
        from .projected_items_net import ProjectedItemsHook
        from .tables_net import item_vectors, start_std

        vectors = item_vectors(inputs[self.source], data.items, self.source.name, missing="mean")
        inputs_, outputs = model.item_table.weight.detach(), model.item_output().detach()
        hook = ProjectedItemsHook(vectors, inputs_.shape[1], outputs.shape[1])
        hook.start_at(start_std(inputs_), start_std(outputs))
        return hook
