"""Items as adapted frozen vectors, without a table of ids (LLMEmb, AAAI 2025, arXiv:2409.19925)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class FrozenItems(Enhancement):
    """The vector of item i is ``x_i = W2 (W1 z_i + b1) + b2``, in histories and as a target.

    z_i is the frozen vector of ``source``; W1 halves its width (``hidden`` sets another one) and
    nothing stands between the two maps, as in the released code. Where a backbone's targets have
    another width than its inputs (Caser), targets have a W2 and b2 of their own. An item without
    a vector has the mean of the others. x_i folds into plain tables: neither z nor the adapter is
    served. ``scale`` as in ``FromVectors``: "match" starts x with the standard deviation of the
    table that it replaces.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"item_input", "item_output", "item_table"})

    source: Node | None = None
    hidden: int = 0
    scale: str | float = "match"

    def __post_init__(self) -> None:
        if self.source is None:
            raise PlanError("FrozenItems needs `source`, a node of item vectors")

    def inert(self) -> None:
        """Return None: the vectors take the place of the table and have no weight."""

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
        from .frozen_items_net import FrozenItemsHook
        from .tables_net import item_vectors, start_std

        vectors = item_vectors(inputs[self.source], data.items, self.source.name, missing="mean")
        inputs_, outputs = model.item_table.weight.detach(), model.item_output().detach()
        hook = FrozenItemsHook(vectors, self.hidden, inputs_.shape[1], outputs.shape[1])
        spread = [start_std(t) if self.scale == "match" else float(self.scale)
                  for t in (inputs_, outputs)]  # fmt: skip
        hook.start_at(*spread)
        return hook
