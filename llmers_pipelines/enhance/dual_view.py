"""A frozen semantic view beside the id view (LLM-ESR, NeurIPS 2024, arXiv:2405.20646)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class DualView(Enhancement):
    """Items are ``[c_i ; A2 A1 z_i]``, users the two views' states side by side; score = dot.

    z is the frozen vector of ``source``, A1 and A2 are linear without anything between. Each view
    attends over the other (two heads), then the backbone's own encoder reads both. Deviations from
    the released code: the cross-attention is causal (there it sees its own target), and with
    ``residual`` it is added to its view (there it replaces it, and a state no longer knows which
    item stands at its own position).
    Item vectors fold into plain tables, so the vectors of ``source`` are not served.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"item_input", "item_output", "hidden_states"})

    source: Node | None = None
    hidden: int = 0  # width between A1 and A2; 0 = half the width of the vectors
    heads: int = 2
    dropout: float = 0.5  # on the attention weights
    residual: bool = False  # the released SASRec form has none
    scale: str | float = "match"  # of the adapted vectors at the start, as in FromVectors

    def __post_init__(self) -> None:
        if self.source is None:
            raise PlanError("DualView needs `source`, a node of item vectors")

    def inert(self) -> None:
        """Return None: the text view is half of every state and has no weight."""

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
        from .dual_view_net import DualViewHook
        from .tables_net import item_vectors, start_std

        vectors = item_vectors(inputs[self.source], data.items, self.source.name, missing="mean")
        table = model.item_table.weight
        hook = DualViewHook(
            n_items=data.n_items, dim=table.shape[1], width=vectors.shape[1],
            hidden=self.hidden or max(1, vectors.shape[1] // 2), heads=self.heads,
            dropout=self.dropout, residual=self.residual,
        )  # fmt: skip
        hook.vectors.copy_(vectors)
        hook.start_at(start_std(table) if self.scale == "match" else float(self.scale))
        return hook
