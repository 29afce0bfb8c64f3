"""KNNBlend: co-occurrence and text together, without training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..plan import Node
from .itemknn import ItemKNN
from .seams import Backbone
from .textknn import TextKNN

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class KNNBlend(Backbone):
    """``(1 - w) a / std(a) + w b / std(b)`` of ItemKNN's scores a and TextKNN's scores b.

    The standard deviations are over the catalog, per user; ``w`` is the best of ``weights`` on
    validation. ``vectors`` is a node of item vectors; the other settings are those of the two.
    """

    tasks: ClassVar[frozenset[str]] = frozenset({"collaborative", "sequential"})
    closed_form: ClassVar[bool] = True

    vectors: Node
    k: int = 100
    shrink: float = 10.0
    centre: bool = True
    decay: str = "validated"
    weights: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

    def build(self, data: TrainingData, seed: int) -> Any:
        from .knnblend_net import KNNBlendNet

        items = ItemKNN(k=self.k, shrink=self.shrink, decay=self.decay)
        text = TextKNN(self.vectors, decay=self.decay, centre=self.centre)
        return KNNBlendNet(
            n_items=data.n_items, weights=self.weights,
            items=items.build(data, seed), text=text.build(data, seed),
        )  # fmt: skip
