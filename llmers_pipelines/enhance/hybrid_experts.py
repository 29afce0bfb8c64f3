"""KAR's hybrid-expert adaptor: text vectors as extra CTR fields (RecSys 2024, arXiv:2306.10933)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..data.training import TrainingData


@dataclass(frozen=True)
class HybridExperts(Enhancement):
    """``r^_u = sum_e alpha_e e(r_u)`` over shared and user experts, ``r^_i`` likewise; ``[x; r^]``.

    Experts are MLPs E -> hidden -> out with ReLU after every layer, ``alpha = softmax(g(r))``. Both
    vectors are extra feature columns: before the MLP in DIN, in the linear term and the MLP (not
    the second-order part) in DeepFM. A row without knowledge is a learned default vector; a bit
    beside each vector says which it is. For serving both sides are plain tables by id.

    Deviation: ``standardize`` centres the text vectors and brings them to unit scale with one
    number per table, so that encoders of any scale start alike; off = the paper's raw vectors.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"feature_columns"})

    user: Node | None = None  # text vectors of users; None = the item side alone
    item: Node | None = None  # text vectors of items
    shared: int = 2  # experts that serve both sides
    specific: int = 5  # experts of each side
    hidden: int = 128
    out: int = 32
    standardize: bool = True
    gate: float = 1.0  # factor on the columns; 0 = present but inert

    def __post_init__(self) -> None:
        if self.item is None:
            raise PlanError("HybridExperts needs `item`, a node of item vectors")
        if min(self.shared + self.specific, self.hidden, self.out) < 1 or self.specific < 0:
            raise PlanError(
                f"HybridExperts: {self.shared} shared and {self.specific} specific experts of "
                f"{self.hidden}-{self.out}; use at least one expert and widths of at least 1"
            )

    def inert(self) -> HybridExperts:
        """Return a part whose columns are zero."""
        return replace(self, gate=0.0)

    def attach(
        self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int
    ) -> Any:
        """Return the hook; raises ValueError where the vectors do not fit the log or each other."""
        from ..models.hooks_net import seeded
        from .hybrid_experts_net import HybridExpertsHook, side_vectors

        sides = {"user": (self.user, data.users), "item": (self.item, data.items)}
        tables = {
            side: side_vectors(inputs[node], ids, side, node.name, self.standardize)
            for side, (node, ids) in sides.items()
            if node is not None
        }
        with seeded(seed, len(model.hooks)):
            hook = HybridExpertsHook(
                tables, self.shared, self.specific, self.hidden, self.out, self.gate
            )
            for _ in tables:
                model.add_columns(self.out + 1)
        return hook
