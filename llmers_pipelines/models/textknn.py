"""TextKNN: items whose text is like the history's, without training (LLMSeqSim, RecSys 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..plan import Node
from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class TextKNN(Backbone):
    """``q = sum_t w_t z_t / sum_t w_t`` over the history, ``s_j = cos(q, z_j)``.

    ``vectors`` is a node of item vectors. ``decay`` gives w by age a (1 = newest): "mean" 1,
    "linear" max(1e-5, 1 - 0.1 (a - 1)), "harmonic" 1 / a, "last" the newest alone; "validated" is
    "harmonic" or "mean", whichever ranks better on validation. ``centre`` takes the catalog's mean
    vector away first. Items without text score 0.
    """

    tasks: ClassVar[frozenset[str]] = frozenset({"collaborative", "sequential"})
    closed_form: ClassVar[bool] = True

    vectors: Node
    decay: str = "validated"
    centre: bool = True

    def build(self, data: TrainingData, seed: int) -> Any:
        from .textknn_net import TextKNNNet

        return TextKNNNet(
            n_items=data.n_items, decay=self.decay, centre=self.centre, source=self.vectors
        )
