"""EASE: a linear item-item model in closed form (Steck, WWW 2019, arXiv:1905.03375)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData

MAX_ITEMS = 40_000


@dataclass(frozen=True)
class EASE(Backbone):
    """``P = (X^T X + l2 I)^-1``, ``B_ij = -P_ij / P_jj``, ``B_jj = 0``; scores ``X_u B`` (eq. 8).

    ``decay`` weighs the history X_u by age when scoring (see TextKNN); the paper's is "mean", and
    the default "validated" is not the paper's: where validation prefers it, newer items weigh more.
    A fit needs about 15 N^2 bytes (measured): the inverse in float64, made in place (8 N^2), the
    served weights (4 N^2), scores and blocks. Refuses catalogs above 40,000 items (22 GiB).
    """

    tasks: ClassVar[frozenset[str]] = frozenset({"collaborative", "sequential"})
    closed_form: ClassVar[bool] = True

    l2: float = 250.0
    decay: str = "validated"

    def build(self, data: TrainingData, seed: int) -> Any:
        from .ease_net import EASENet

        if data.n_items > MAX_ITEMS:
            gib = 15 * data.n_items**2 / 2**30
            raise ValueError(
                f"EASE on {data.n_items} items would need {gib:.0f} GiB; the limit is {MAX_ITEMS} "
                "items. Use ItemKNN, or filter the catalog"
            )
        return EASENet(n_items=data.n_items, l2=self.l2, decay=self.decay)
