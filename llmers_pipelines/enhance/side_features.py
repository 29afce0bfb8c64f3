"""Text features beside the graph: LLMRec's encoder and its losses (WSDM 2024, arXiv:2311.00423)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class SideFeatures(Enhancement):
    """``e_u = e_u^graph + sum_k c_k norm(x_u^k)``, items likewise, for each kind k of feature.

    ``g^k = F^k W_k`` projects the vectors of a kind to the backbone's width. Features of items give
    ``x_u = mean of g over the user's items`` and ``x_i = mean of x_u over the item's users``;
    features of users give ``x_i = mean of g over the item's users`` and ``x_u = mean of x_i over
    the user's items`` (propagation with the row-normalized training graph, eq. of sec. 3.3). A user
    is scored from the history that is given, by the same means, so that only tables by item are
    served.

    Losses, each with its weight: ``profile_attribute`` times the sum over attributes of pruned BPR
    on ``<g_u^profile, g_i^attribute>``; ``modality`` times BPR on ``<x_u, x_i>`` of ``text``;
    ``l2 / 2`` times the mean squared norm of the projected features in the batch; ``restore`` times
    masked restoration: a share ``mask`` of the rows of each kind is replaced by their mean,
    propagated, decoded, and compared with what was masked, ``mean (1 - cos)^gamma``.

    Vectors are centred and brought to unit scale; rows without knowledge are zero and add nothing.
    """

    needs: ClassVar[frozenset[str]] = frozenset(
        {"user_state", "item_output", "extra_loss", "user_table"}
    )

    text: Node | None = None  # vectors of the items' own texts
    profile: Node | None = None  # vectors of users' profiles
    attributes: tuple[Node, ...] = ()  # vectors of items' attributes
    c_text: float = 0.1
    c_profile: float = 0.1
    c_attribute: float = 0.1
    profile_attribute: float = 0.012
    modality: float = 1e-4
    l2: float = 1e-5
    restore: float = 0.1
    mask: float = 0.1
    gamma: float = 2.0
    drop: float = 0.0
    keep: Literal["easiest", "hardest"] = "easiest"

    def __post_init__(self) -> None:
        if self.text is None and self.profile is None and not self.attributes:
            raise PlanError("SideFeatures needs at least one of `text`, `profile`, `attributes`")
        if not (0 <= self.mask < 1 and 0 <= self.drop < 1 and self.gamma >= 1):
            raise PlanError(
                f"SideFeatures(mask={self.mask}, drop={self.drop}, gamma={self.gamma}): mask and "
                "drop are shares in [0, 1), gamma is at least 1"
            )
        if self.keep not in ("easiest", "hardest"):
            raise PlanError(f"SideFeatures: keep is {self.keep!r}; use 'easiest' or 'hardest'")

    def inert(self) -> SideFeatures:
        """Return a part that adds no view and whose losses have no weight."""
        return replace(
            self, c_text=0.0, c_profile=0.0, c_attribute=0.0, profile_attribute=0.0, modality=0.0,
            l2=0.0, restore=0.0,
        )  # fmt: skip

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
        """Return the hook; ValueError where vectors do not fit the log or are not finite."""
        from .hybrid_experts_net import side_vectors
        from .side_features_net import Kind, Losses, SideFeaturesHook

        kinds = [
            ("text", "item", self.text, self.c_text),
            ("profile", "user", self.profile, self.c_profile),
            *(("attribute", "item", node, self.c_attribute) for node in self.attributes),
        ]
        ids = {"item": data.items, "user": data.users}
        made = [
            Kind(name, side, c, *side_vectors(inputs[node], ids[side], side, node.name, True))
            for name, side, node, c in kinds
            if node is not None
        ]
        losses = Losses(
            self.profile_attribute, self.modality, self.l2, self.restore, self.mask, self.gamma,
            self.drop, self.keep,
        )  # fmt: skip
        return SideFeaturesHook(made, losses, data, model.item_table.weight.shape[1])
