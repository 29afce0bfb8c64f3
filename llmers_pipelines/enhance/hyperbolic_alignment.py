"""Text vectors drawn to the points of users and items (HaRec / HERec, arXiv:2411.13865)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class HyperbolicAlignment(Enhancement):
    """Adds ``weight`` times the mean over a batch of ``d^2(u, f(z_u)) + d^2(i, f(z_i))``.

    ``f(z) = exp_0(W_2 LeakyReLU(W_1 z))``, of hidden width ``(E + D) / 2``, is one network for both
    sides; its weights have the learning rate ``rate``. ``users`` and ``items`` are nodes of vectors
    of one width, either may be missing; a user or an item without a vector is left out of the mean.
    Text vectors are frozen, the network serves training alone.

    Without ``rate`` the network would learn at the rate of the points, which is made for
    Riemannian steps.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"points", "extra_loss"})

    users: Node | None = None
    items: Node | None = None
    weight: float = 0.1
    rate: float = 1e-3

    def __post_init__(self) -> None:
        if self.users is None and self.items is None:
            raise PlanError("HyperbolicAlignment needs `users` or `items`, a node of vectors")
        if self.weight < 0 or self.rate <= 0:
            raise PlanError(
                f"HyperbolicAlignment(weight={self.weight}, rate={self.rate}): the weight is not "
                "below 0, the rate above it"
            )

    def inert(self) -> HyperbolicAlignment:
        """Return a part whose distances have no weight."""
        return replace(self, weight=0.0)

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
        """Return the hook; ValueError where vectors do not fit the log or each other."""
        from .hybrid_experts_net import side_vectors
        from .hyperbolic_alignment_net import HyperbolicAlignmentHook

        nodes = {"user": self.users, "item": self.items}
        ids = {"user": data.users, "item": data.items}
        vectors = {
            side: side_vectors(inputs[node], ids[side], side, node.name, True)
            for side, node in nodes.items() if node is not None
        }  # fmt: skip
        widths = {side: rows.shape[1] for side, (rows, _) in vectors.items()}
        if len(set(widths.values())) > 1:
            raise ValueError(
                f"HyperbolicAlignment: text vectors of different widths, {widths}: one network "
                "reads both sides; encode them with one encoder"
            )
        width = model.item_table.weight.shape[1]
        return HyperbolicAlignmentHook(vectors, width, self.weight, self.rate)
