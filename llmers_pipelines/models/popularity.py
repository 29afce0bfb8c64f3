"""Popularity: the reference that every model must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class Popularity(Backbone):
    """``s_j`` = training interactions of item j; equal counts stay ties."""

    tasks: ClassVar[frozenset[str]] = frozenset({"collaborative", "sequential"})
    closed_form: ClassVar[bool] = True

    def build(self, data: TrainingData, seed: int) -> Any:
        from .popularity_net import PopularityNet

        return PopularityNet(n_items=data.n_items)
