"""Training on a log with more interactions than were observed (LLM-InS, ColdLLM, WSDM 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class AddedRows(Enhancement):
    """The training rows and those of ``source`` (``user_id, item_id, source``), all alike.

    So a graph has their edges and a loss their pairs. Of the rows the first ``share`` of the table
    is added. Validation, test and served histories are those of the log.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"item_table"})  # what batches teach

    source: Node | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.source is None:
            raise PlanError("AddedRows needs `source`, a node of interactions")
        if not 0 <= self.share <= 1:
            raise PlanError(f"AddedRows(share={self.share}): a share in [0, 1]")

    def inert(self) -> AddedRows:
        """Return a part that adds nothing."""
        return replace(self, share=0.0)

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> None:
        """Nothing is attached: the log is what changes."""

    def edited(self, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> TrainingData:
        """Return the log with more rows; ValueError where they are those of another log."""
        from ..data.added import with_added

        table = inputs[self.source]
        count = int(np.ceil(self.share * table.num_rows))
        return with_added(data, table.slice(0, count), self.source.name) if count else data
