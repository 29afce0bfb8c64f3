"""Text vectors per layer beside the layers of a graph model (GaCLLM, arXiv:2402.08859)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData

HOWS = ("concat", "sum")


@dataclass(frozen=True)
class LayerTexts(Enhancement):
    """``h_v`` joins the graph's vector ``e_v`` with ``x_v^l W`` of each round l = 0..L.

    ``items`` are nodes of item vectors of rounds 0..L, ``users`` of user vectors of the last rounds
    (users often have no text before round 1). A user without a text in a round, a stranger too, has
    the mean of that round's vectors of the items met (in training; in the history), so that text
    meets text in the score of each round.

    ``how`` "sum": ``h_v = e_v + mean_l x_v^l W``, which is the mean over layers of ``e_v^l + x_v^l
    W`` where the graph has as many layers as rounds; "concat": all of them side by side. W is one
    matrix for all rounds and both sides, as the same encoder read them. Added to the loss:
    ``weight`` times the contrast (in batch, temperature ``tau``) between ``e_v^l`` and ``x_v^l W``
    of equal l, averaged over the rounds that the graph has a layer for, rows without a text of
    their own left out. Fusion and alignment are not settled by the paper's abstract, so both are
    settings; a score by MLP is not offered.
    """

    revision: ClassVar[int] = 2

    needs: ClassVar[frozenset[str]] = frozenset(
        {"graph_input", "user_state", "item_output", "extra_loss", "user_table"}
    )

    items: tuple[Node, ...] = ()
    users: tuple[Node, ...] = ()
    how: Literal["concat", "sum"] = "concat"
    weight: float = 0.1
    tau: float = 0.2
    strength: float = 1.0  # of the texts; 0 leaves the backbone alone

    def __post_init__(self) -> None:
        if not self.items or len(self.users) > len(self.items):
            raise PlanError(
                f"LayerTexts has {len(self.items)} rounds of item vectors and {len(self.users)} of "
                "user vectors; it needs those of items for each round from 0 on"
            )
        if self.how not in HOWS or self.weight < 0 or self.tau <= 0 or self.strength < 0:
            raise PlanError(
                f"LayerTexts(how={self.how!r}, weight={self.weight}, tau={self.tau}, strength="
                f"{self.strength}): how is one of {', '.join(HOWS)}; tau is above 0, the others "
                "not below"
            )

    def inert(self) -> LayerTexts:
        """Return a part whose texts count nothing."""
        return replace(self, weight=0.0, strength=0.0)

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
        """Return the hook; ValueError where vectors do not fit the log or are not finite."""
        from .hybrid_experts_net import side_vectors
        from .layer_texts_net import LayerTextsHook, with_users

        first = len(self.items) - len(self.users)
        ids = {"item": data.items, "user": data.users}
        rounds = []
        for number, item_node in enumerate(self.items):
            sides = {"item": item_node}
            if number >= first:
                sides["user"] = self.users[number - first]
            rounds.append({
                side: side_vectors(inputs[node], ids[side], side, node.name, True)
                for side, node in sides.items()
            })  # fmt: skip
        return LayerTextsHook(
            with_users(rounds, data), n_users=data.n_users,
            dim=model.item_table.weight.shape[1], how=self.how, weight=self.weight, tau=self.tau,
            strength=self.strength,
        )  # fmt: skip
