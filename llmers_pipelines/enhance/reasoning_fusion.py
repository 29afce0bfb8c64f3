"""Encoded reasoning graphs beside the state of a sequence model (LLMRG, arXiv:2308.10835)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class ReasoningFusion(Enhancement):
    """``E = [E_base ; E_original ; E_divergent] W_f``; both graphs are read by one SR-GNN each.

    ``graphs`` is a node of graphs per user, round and kind, ``texts`` one of vectors of their text
    nodes. A node starts as the item's own row of the table, or as ``Enc(text) W``; ``steps`` gated
    updates; the readout is ``W [last node ; attention-pooled nodes]``. W_f starts at ``[I; 0; 0]``,
    which is the backbone.

    The state before row p of a user's training rows uses the newest round whose cut is at most p,
    so that no graph tells of what is to be predicted; scoring uses the last round. A user (or a
    place) without a graph has a learned default in its place. Served: one table per kind and W_f.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"item_input", "user_state", "item_table"})

    graphs: Node | None = None
    texts: Node | None = None
    steps: int = 1
    strength: float = 1.0  # 0 leaves the backbone alone

    def __post_init__(self) -> None:
        if self.graphs is None or self.texts is None:
            raise PlanError("ReasoningFusion needs `graphs` and `texts`, vectors of their nodes")
        if self.steps < 1 or self.strength < 0:
            raise PlanError(f"ReasoningFusion(steps={self.steps}, strength={self.strength}): at "
                            "least one step; strength is not negative")  # fmt: skip

    def inert(self) -> ReasoningFusion:
        """Return a part that leaves states as they are."""
        return replace(self, strength=0.0)

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
        """Return the hook; ValueError where a graph names a text without a row."""
        from .reasoning_fusion_net import ReasoningHook, pack

        assert self.graphs is not None and self.texts is not None
        packed, vectors = pack(
            inputs[self.graphs], inputs[self.texts], data, (self.graphs.name, self.texts.name)
        )
        return ReasoningHook(
            packed, vectors, dim=model.item_table.weight.shape[1],
            width=model.item_output().shape[1], steps=self.steps, strength=self.strength,
        )  # fmt: skip
