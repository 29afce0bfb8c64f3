"""One graph per aspect beside the graph of all interactions (SAGCN, arXiv:2312.16275)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData

HOWS = ("concat", "sum", "mean")


@dataclass(frozen=True)
class AspectViews(Enhancement):
    """``E_a = mean_{l=0..layers} (D_a^-1/2 A_a D_a^-1/2)^l E_a^0`` for each aspect a, tables of its
    own; users and items are the views of all aspects, side by side, summed or averaged.

    ``edges`` is a node of rows user_id, item_id, aspect, all of them training rows. With
    ``implicit`` the backbone's own vectors, of the graph of all training rows, are one view more;
    without it the aspects alone count. ``dim`` 0 takes the backbone's width. ``l2 / 2`` times the
    squared norm of the rows of E_a^0 in the batch is added to the loss. A pair that no review
    connects in an aspect is an isolated node there: ``E_a = E_a^0 / (layers + 1)``.

    A known user has the trained view whatever history is scored (held-out reviews never enter); an
    unknown one the view that the propagation rule gives the history.
    """

    revision: ClassVar[int] = 2  # ids that training never met are unknown ones
    needs: ClassVar[frozenset[str]] = frozenset(
        {"user_state", "item_output", "extra_loss", "user_table"}
    )

    edges: Node | None = None
    layers: int = 3
    dim: int = 0
    how: Literal["concat", "sum", "mean"] = "concat"
    implicit: bool = True
    l2: float = 1e-3
    strength: float = 1.0  # of the views; 0 leaves the backbone alone

    def __post_init__(self) -> None:
        if self.edges is None:
            raise PlanError("AspectViews needs `edges`, a node of rows user_id, item_id, aspect")
        if self.how not in HOWS or self.layers < 0 or self.strength < 0:
            raise PlanError(
                f"AspectViews(how={self.how!r}, layers={self.layers}, strength={self.strength}): "
                f"how is one of {', '.join(HOWS)}; layers and strength are not negative"
            )

    def inert(self) -> AspectViews:
        """Return a part whose views count nothing."""
        return replace(self, strength=0.0, l2=0.0)

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
        """Return the hook; ValueError where an edge is no training row or there is none."""
        import numpy as np

        from ..models.met import forget, met_of
        from .aspect_views_net import AspectViewsHook, aspect_graphs
        from .tables_net import start_std

        assert self.edges is not None
        graphs = aspect_graphs(inputs[self.edges], data, self.edges.name)
        width = model.item_table.weight.shape[1]
        if self.how != "concat" and self.dim not in (0, width):
            raise ValueError(f"AspectViews(how={self.how!r}, dim={self.dim}): only views of the "
                             f"backbone's width, {width}, can be summed")  # fmt: skip
        std = start_std(model.item_table.weight)
        hook = AspectViewsHook(
            graphs, n_users=data.n_users, n_items=data.n_items, dim=self.dim or width, std=std,
            layers=self.layers, how=self.how, implicit=self.implicit, l2=self.l2,
            strength=self.strength,
        )  # fmt: skip
        trained = np.ones(data.n_users + data.n_items + 2, bool)  # items are negatives
        trained[: data.n_users + 1] = met_of(data).users
        for table in hook.tables:
            forget(table, trained)
        return hook
