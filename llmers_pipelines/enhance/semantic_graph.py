"""Text vectors and their nearest neighbours under a graph model (CoLaKG, arXiv:2410.12229)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class SemanticGraph(Enhancement):
    """Propagates ``h_u = (e_u + s'_u) / 2`` and ``h'_i = (h_i + ELU(sum_j a_ij h_j)) / 2``.

    ``s' = ELU(s W_1)`` projects the frozen text vectors of a side and ``h_i = (e_i + s'_i) / 2``;
    ``a_ij`` is the softmax over the neighbours j of i of ``LeakyReLU_0.2(a . [s_j W ; s_i W])``, W
    of width ``attention``. ELU stands on the neighbours' sum alone, as in the released code (the
    paper's slide has it around the mean). ``dropout`` on text vectors and attention weights;
    ``l2 / 2`` times the squared norm of the projected rows of the batch is added to the loss.

    An entity without a text vector has ``s' = 0``, which keeps its scale; an item without
    neighbours keeps ``h_i``. ``strength`` moves from the backbone (0: both merges are skipped) to
    the method (1). Zeroed vectors would not be an off switch: users would shrink by a half.

    ``items`` and ``users`` are nodes of vectors, ``neighbours`` one of rows item_id, rank,
    other_id; ``users`` may be missing.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"graph_input", "extra_loss", "user_table"})

    items: Node | None = None
    users: Node | None = None
    neighbours: Node | None = None
    attention: int = 32
    dropout: float = 0.6
    l2: float = 1e-4
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.items is None or self.neighbours is None:
            raise PlanError("SemanticGraph needs `items` (vectors) and `neighbours` (a table)")
        if not (0 <= self.dropout < 1 and 0 <= self.strength <= 1 and self.attention > 0):
            raise PlanError(
                f"SemanticGraph(dropout={self.dropout}, strength={self.strength}, attention="
                f"{self.attention}): dropout in [0, 1), strength in [0, 1], a positive width"
            )

    def inert(self) -> SemanticGraph:
        """Return a part that skips both merges."""
        return replace(self, strength=0.0, l2=0.0)

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
        """Return the hook; ValueError where vectors or neighbours do not fit the log."""
        from .hybrid_experts_net import side_vectors
        from .semantic_graph_net import SemanticGraphHook, neighbour_table

        nodes = {"user": self.users, "item": self.items}
        ids = {"user": data.users, "item": data.items}
        vectors = {
            side: side_vectors(inputs[node], ids[side], side, node.name, True)[0]
            for side, node in nodes.items() if node is not None
        }  # fmt: skip
        assert self.neighbours is not None
        near = neighbour_table(inputs[self.neighbours], data.items, self.neighbours.name)
        return SemanticGraphHook(
            vectors, near, dim=model.item_table.weight.shape[1], attention=self.attention,
            dropout=self.dropout, l2=self.l2, strength=self.strength,
        )  # fmt: skip
