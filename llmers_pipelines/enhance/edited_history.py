"""Training on a corrected log (LLM4DSR, arXiv:2408.08208)."""

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
class EditedHistory(Enhancement):
    """Training rows with the edits of ``source`` (``user_id, position, old_id, new_id``).

    Positions count a user's training rows from 0. Order and number of the rows stay, ratings and
    times too. Of the edits the ``share`` with the highest ``logp`` is made. Only what is trained on
    is edited: validation, test and served histories are those of the log, because a cleaned live
    history would need a language model when it is served.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"item_table"})  # what batches teach

    source: Node | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.source is None:
            raise PlanError("EditedHistory needs `source`, a node of edits")
        if not 0 <= self.share <= 1:
            raise PlanError(f"EditedHistory(share={self.share}): a share in [0, 1]")

    def inert(self) -> EditedHistory:
        """Return a part that makes no edit."""
        return replace(self, share=0.0)

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> None:
        """Nothing is attached: the log is what changes."""

    def edited(
        self, data: TrainingData, inputs: Mapping[Node, Any], seed: int
    ) -> TrainingData:
        """Return the log with the edits; ValueError where they are those of another log."""
        from ..data.edits import with_edits

        table = inputs[self.source]
        count = int(np.ceil(self.share * table.num_rows))
        if not count:
            return data
        order = np.argsort(-table["logp"].to_numpy(), kind="stable")[:count]
        return with_edits(data, table.take(np.sort(order)), self.source.name)
