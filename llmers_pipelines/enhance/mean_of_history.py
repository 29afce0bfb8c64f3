"""Users that start as the mean of their items (LLMInit, arXiv:2503.01814)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..models.seams import Enhancement
from ..plan import Node

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class MeanOfHistory(Enhancement):
    """The initial row of a user is the mean of the rows of its training items; stays trainable.

    Without ``source`` the rows are those of the model's item table as it then is, so put it after
    the part that initializes the items. With a ``source`` of item vectors they are these vectors,
    scaled as ``FromVectors`` scales them. A user without a training item (or without an item that
    has a vector) keeps its ordinary start.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"item_table", "user_table"})

    source: Node | None = None
    scale: str | float = "match"

    def inert(self) -> None:
        """Return None: it is the start of a table, which no weight takes back."""

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> None:
        import torch

        from .tables_net import mean_of_items, overwrite, scaled_rows

        items = model.item_table.weight.detach()
        real = torch.arange(len(items)) > 0
        if self.source is not None:
            items, real = scaled_rows(
                inputs[self.source], data.items, items, self.scale, "item", self.source.name
            )
        rows, known = mean_of_items(items, real, data)
        overwrite(model.user_table.weight, rows, known)
