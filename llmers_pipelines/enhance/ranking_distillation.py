"""A student learns a teacher's rankings (DLLM2Rec, RecSys 2024, arXiv:2405.00338)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData

LOSSES = ("bce", "bce_shifted", "softmax")


@dataclass(frozen=True)
class RankingDistillation(Enhancement):
    """Importance-aware ranking distillation: ``weight * sum_{k <= K} w_k l(teacher's item k)``.

    With r = 1..K the rank and d the teacher's distance of an item (lower is surer),

        w_pos ~ exp(-r / beta),  w_conf ~ exp(-d),  each normalised over the K items;
        w_cons = 1 if the item is among the student's own K best of the whole catalog, else 1e-8;
        w ~ position w_pos + confidence w_conf + consistency w_cons, normalised.

    ``loss``: "bce" is ``-ln sigmoid(s_k) - ln sigmoid(-s_neg)`` with one item drawn at random (none
    of the teacher's and not the target); "bce_shifted" has ``-ln sigmoid(1 - s_neg)``, as the
    released code has; "softmax" is ``-ln softmax(s)_k`` over the catalog, the scale on which a
    backbone with full cross-entropy scores. Its mean is over training positions that the teacher
    ranked. ``teacher`` is a node of rows user_id, position, rank, item_id, distance. Nothing of it
    is served.
    """

    needs: ClassVar[frozenset[str]] = frozenset({
        "hidden_states", "user_state", "item_output", "extra_loss",
    })  # fmt: skip

    teacher: Node | None = None
    k: int = 10
    weight: float = 0.8
    position: float = 0.3
    confidence: float = 0.5
    consistency: float = 0.1
    beta: float = 1.0
    loss: str = "bce"

    def __post_init__(self) -> None:
        if self.teacher is None:
            raise PlanError("RankingDistillation needs `teacher`, a node of rankings")
        if self.loss not in LOSSES:
            raise PlanError(f"RankingDistillation: loss is {self.loss!r}; use one of {LOSSES}")
        parts = (self.position, self.confidence, self.consistency)
        if self.k < 1 or self.beta <= 0 or min(parts) < 0 or sum(parts) <= 0:
            raise PlanError(
                f"RankingDistillation: k={self.k}, beta={self.beta}, weights {parts}; k is at "
                "least 1, beta above 0, no weight below 0 and not all of them 0"
            )

    def inert(self) -> RankingDistillation:
        """Return a part whose loss has no weight."""
        return replace(self, weight=0.0)

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
        from .ranking_distillation_net import RankingHook, ranking_lists

        lists = ranking_lists(inputs[self.teacher], data, self.k, self.teacher.name)
        return RankingHook(lists, self)
