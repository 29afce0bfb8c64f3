"""A table that starts from vectors (LLM2X: Harte et al., RecSys 2023, arXiv:2309.09261)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..models.seams import Backbone, Enhancement
from ..plan import Node, Pin, PlanError, Train

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class FromVectors(Enhancement):
    """Overwrite the initial rows of the item or user table with vectors; the table stays trainable.

    ``source`` is a node of vectors as wide as the table (reduce them first). ``scale``: "match"
    multiplies them so that their entries have the standard deviation of the table's own start; a
    number multiplies them by itself. Entities without a vector keep their ordinary start.
    """

    side: Literal["item", "user"] = "item"
    source: Node | None = None
    scale: str | float = "match"

    def __post_init__(self) -> None:
        if self.side not in ("item", "user"):
            raise PlanError(f"FromVectors: side is {self.side!r}; use 'item' or 'user'")
        if self.source is None:
            raise PlanError("FromVectors needs `source`, a node of vectors")
        if isinstance(self.scale, str) and self.scale != "match":
            raise PlanError(f"FromVectors: scale is {self.scale!r}; use 'match' or a number")

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({f"{self.side}_table"})

    def inert(self) -> None:
        """Return None: it is the start of a table, which no weight takes back."""

    def misfit(self, backbone: Backbone) -> str:
        """Refuse the vectors of a hyperbolic model, all D + 1 coordinates, for a table of D."""
        read = [s.node if isinstance(s, Pin) else s for s in getattr(self.source, "sources", ())]
        models = [node.backbone for node in read if isinstance(node, Train)]
        curved = [m for m in models if "points" in m.seams]
        if "points" not in backbone.seams or not curved:
            return ""
        width = getattr(curved[0], "dim", 0) + 1
        return (
            f"the vectors by which {type(curved[0]).__name__} scores are coordinates of points, of "
            f"width {width}; the {self.side} table has width {getattr(backbone, 'dim', 0)}; leave "
            "this start out (LLM-InS: update = false), or choose a backbone of plain vectors"
        )

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> None:
        from .tables_net import overwrite, scaled_rows

        table = getattr(model, f"{self.side}_table").weight
        ids = data.items if self.side == "item" else data.users
        rows, real = scaled_rows(
            inputs[self.source], ids, table, self.scale, self.side, self.source.name
        )
        overwrite(table, rows, real)
