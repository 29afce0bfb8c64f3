"""What training thinks of each sample, epoch by epoch, as a table beside the weights (LLMHD)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class TrainingStatistics(Enhancement):
    """Records scores of every training pair and of one fixed negative of it, changing nothing.

    Scores are those after each epoch but the last one; the ``last`` newest count. The table
    ``statistics`` has ``user_id, item_id, negative_id``, mean and population variance of both
    scores, ``loss`` (mean of ``-ln sigmoid(s+ - s-)``), ``epochs`` (how many were recorded),
    ``low_epochs`` (in how many of them the pair was among the share ``extreme`` of positives with
    the lowest scores) and ``high_epochs`` (its negative among the highest). Source: variance
    pruning of LLMHD (arXiv:2409.10343).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"pair_loss", "user_state", "user_table"})
    writes: ClassVar[str] = "statistics"  # a table beside the weights

    last: int = 5
    extreme: float = 0.1

    def __post_init__(self) -> None:
        if self.last < 1 or not 0 <= self.extreme <= 1:
            raise PlanError(
                f"TrainingStatistics(last={self.last}, extreme={self.extreme}): at least 1 epoch, "
                "extreme is a share in [0, 1]"
            )

    def inert(self) -> TrainingStatistics:
        """Return the part itself: it watches and changes nothing."""
        return replace(self)

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
        from .training_statistics_net import TrainingStatisticsHook

        return TrainingStatisticsHook(data, self.last, self.extreme, seed)
