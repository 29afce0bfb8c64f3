"""ItemKNN: items that were consumed by the same users (Sarwar et al., WWW 2001)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class ItemKNN(Backbone):
    """``S_ij = <x_i, x_j> / (|x_i| |x_j| + shrink)``, the ``k`` best i of each j; ``s = X_u S``.

    ``decay`` weighs the history X_u by age when scoring (see TextKNN); the paper's is "mean", and
    the default "validated" is not the paper's: where validation prefers it, newer items weigh more.
    ``shrink`` is 10 by default, where the plain cosine of the paper has 0: on a small log few
    common users give the highest similarities. Search both ``k`` and ``shrink`` (``llmers tune``).
    """

    tasks: ClassVar[frozenset[str]] = frozenset({"collaborative", "sequential"})
    closed_form: ClassVar[bool] = True

    k: int = 100
    shrink: float = 10.0
    decay: str = "validated"

    def build(self, data: TrainingData, seed: int) -> Any:
        from .itemknn_net import ItemKNNNet

        return ItemKNNNet(n_items=data.n_items, k=self.k, shrink=self.shrink, decay=self.decay)
