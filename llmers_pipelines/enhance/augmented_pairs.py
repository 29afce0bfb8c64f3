"""Liked and disliked items as extra training pairs (LLMRec, WSDM 2024, arXiv:2311.00423)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class AugmentedPairs(Enhancement):
    """Each batch of B pairs gets floor(share B) pairs (u, liked, disliked) of its own users.

    ``L = mean(prune(losses of the B pairs, weight * -ln sigmoid(s(u, liked) - s(u, disliked))))``.
    ``drop`` is the share pruned by size of the loss; ``keep="easiest"`` drops the largest, which is
    denoising, ``"hardest"`` drops the smallest, as the released code does. Where the backbone's own
    objective is no BPR, its losses and those of the pairs have different scales, so that each of
    the two is pruned among its like. With ``share`` and ``drop`` 0 nothing is changed.

    ``source`` is a node of rows user_id, liked, disliked (lists of item ids of equal length; null
    where there is no answer). Pairs that name an item outside of the log, an item twice, or as
    liked an item that the user has in training, are left out.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"pair_loss", "user_state", "user_table"})

    source: Node | None = None
    share: float = 0.1
    drop: float = 0.0
    keep: Literal["easiest", "hardest"] = "easiest"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.source is None:
            raise PlanError("AugmentedPairs needs `source`, a node of augmented interactions")
        if not (0 <= self.share <= 1 and 0 <= self.drop < 1 and self.weight >= 0):
            raise PlanError(
                f"AugmentedPairs(share={self.share}, drop={self.drop}, weight={self.weight}): a "
                "share is in [0, 1], a drop in [0, 1), a weight at least 0"
            )
        if self.keep not in ("easiest", "hardest"):
            raise PlanError(f"AugmentedPairs: keep is {self.keep!r}; use 'easiest' or 'hardest'")

    def inert(self) -> AugmentedPairs:
        """Return a part that adds no pair and prunes none."""
        return replace(self, share=0.0, drop=0.0)

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
        from .augmented_pairs_net import AugmentedPairsHook, pairs_by_user

        start, liked, disliked = pairs_by_user(inputs[self.source], data, self.source.name)
        return AugmentedPairsHook(
            start, liked, disliked, self.share, self.drop, self.keep, self.weight
        )
