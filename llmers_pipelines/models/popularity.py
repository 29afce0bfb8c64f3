"""Popularity: the reference that every model must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..plan import PlanError, later
from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class Popularity(Backbone):
    """``s_j`` = training interactions of item j; equal counts stay ties.

    With ``days`` > 0 a row counts if it is less than ``days`` * 86,400 seconds older than the
    newest training row: under a split by time, counts of all times rank items that were popular
    once, and a training with the default 0 says so in its log and in reports. ValueError where the
    log has no timestamps.
    """

    tasks: ClassVar[frozenset[str]] = frozenset({"collaborative", "sequential"})
    closed_form: ClassVar[bool] = True

    days: int = later(0)  # of training, the newest; 0 = all

    def __post_init__(self) -> None:
        if self.days < 0:
            raise PlanError(f"Popularity: days is {self.days}; a number above 0, or 0 for all")

    def caution(self, data: TrainingData) -> str:
        if self.days or data.info.get("protocol") != "time":
            return ""
        return (
            "Popularity counts all training rows of a split by time, which ranks what was popular "
            "once; days = 30 (or what does best on validation) is the stronger reference"
        )

    def build(self, data: TrainingData, seed: int) -> Any:
        from .popularity_net import PopularityNet

        if self.days and data.info.get("clock", "seconds") != "seconds":
            raise ValueError(
                f"Popularity with days = {self.days} needs timestamps, and the clock of this log "
                f"is {data.info['clock']!r}; map a timestamp or set days to 0"
            )
        return PopularityNet(n_items=data.n_items, days=self.days)
