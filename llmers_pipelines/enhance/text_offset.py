"""Item vectors as an offset over text vectors (DLLM2Rec, RecSys 2024, arXiv:2405.00338)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class TextOffset(Enhancement):
    """Collaborative embedding distillation: the input vector of item i is ``e_i + w (W z_i + b)``.

    z_i is the frozen vector of ``source``, W and b are trained, w is ``weight``. e_i stays free, so
    what the log says is a learned offset over what the text says and nothing is forced to agree.
    An item without a vector has z_i = 0, that is ``e_i + w b``. Outputs (targets) stay e_i. The
    sum folds into one input table; neither z nor W is served. ``scale``: "match" makes ``W z + b``
    start with the standard deviation of the item table; a number gives that deviation; "none"
    leaves the usual start of a linear layer, as in the released code.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"item_input", "item_table"})

    source: Node | None = None
    weight: float = 0.2
    scale: str | float = "match"

    def __post_init__(self) -> None:
        if self.source is None:
            raise PlanError("TextOffset needs `source`, a node of item vectors")
        if isinstance(self.scale, str) and self.scale not in ("match", "none"):
            raise PlanError(f"TextOffset: scale is {self.scale!r}; use 'match', 'none' or a number")

    def inert(self) -> TextOffset:
        """Return a part that adds nothing to an item."""
        return replace(self, weight=0.0)

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
        from .tables_net import item_vectors, start_std
        from .text_offset_net import TextOffsetHook

        table = model.item_table.weight
        vectors = item_vectors(inputs[self.source], data.items, self.source.name, missing="zero")
        hook = TextOffsetHook(vectors, table.shape[1], self.weight)
        if self.scale != "none":
            std = start_std(table) if self.scale == "match" else float(self.scale)
            hook.start_at(std)
        return hook
