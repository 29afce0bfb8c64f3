"""Item vectors kept near those of a trained recommender (LLMEmb, AAAI 2025, arXiv:2409.19925)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData

LOSSES = ("soft_target", "info_nce")


@dataclass(frozen=True)
class CollaborativeAlignment(Enhancement):
    """Adds ``weight`` times the contrast between a batch's targets and their ``source`` vectors.

    ``source`` are frozen item vectors of a recommender that was trained before, of the backbone's
    width. ``loss`` "soft_target" is that of the released code, "info_nce" the usual one; ``tau`` is
    its temperature. Each target counts once; of more than ``most`` as many are drawn. Targets
    without a vector are left out. It serves training alone.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"item_input", "extra_loss", "item_table"})

    source: Node | None = None
    weight: float = 0.01
    tau: float = 2.0
    loss: Literal["soft_target", "info_nce"] = "soft_target"
    most: int = 256

    def __post_init__(self) -> None:
        if self.source is None:
            raise PlanError("CollaborativeAlignment needs `source`, a node of item vectors")
        if self.tau <= 0 or self.most < 2 or self.loss not in LOSSES:
            raise PlanError(
                f"CollaborativeAlignment(tau={self.tau}, most={self.most}, loss={self.loss!r}): "
                f"tau above 0, at least 2 items, a loss of {LOSSES}"
            )

    def inert(self) -> CollaborativeAlignment:
        """Return a part whose loss has no weight."""
        return replace(self, weight=0.0)

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
        """Return the hook; ValueError where the vectors have another width than the backbone's."""
        from .collaborative_alignment_net import AlignmentHook
        from .tables_net import item_vectors

        found = inputs[self.source]
        vectors = item_vectors(found, data.items, self.source.name, missing="zero")
        width = model.item_table.weight.shape[1]
        if vectors.shape[1] != width:
            raise ValueError(
                f"{self.source.name}: vectors of width {vectors.shape[1]}, the backbone's is "
                f"{width}; train the recommender that is aligned with at that width"
            )
        return AlignmentHook(vectors, self.weight, self.tau, self.loss, self.most)
