"""Losses that are taken for noise are dropped, unless a judge calls the sample hard (LLMHD)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class SampleMask(Enhancement):
    """``L = mean over (B minus B_N) union B_H`` of the backbone's pair losses.

    B_N are the ``eps(T) = most min(1, T / grow)`` share of a batch (rounded up) with the largest
    losses, T the step (the printed form was not legible; this one is that of T-CE), B_H those among
    them that ``source`` marks as hard: by their positive (label 1), or by a negative that the batch
    compares it with (label 0). Without a source, or with one that marks nothing, it is truncated
    loss alone; with ``most`` 0 it is the backbone's own loss.

    ``source`` has the columns user_id, item_id, label, hard. ``round`` names the round that made
    it. Source: LLMHD (arXiv:2409.10343).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"pair_loss", "user_state", "user_table"})

    source: Node | None = None
    most: float = 0.1
    grow: int = 3000
    round: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.most < 1 or self.grow < 0:
            raise PlanError(
                f"SampleMask(most={self.most}, grow={self.grow}): most is a share in [0, 1), grow "
                "a number of steps of at least 0"
            )

    def inert(self) -> SampleMask:
        """Return a part that drops nothing."""
        return replace(self, most=0.0)

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
        from .sample_mask_net import SampleMaskHook, hard_keys

        table = None if self.source is None else inputs[self.source]
        name = "" if self.source is None else self.source.name
        return SampleMaskHook(*hard_keys(table, data, name), data.n_items + 1, self.most, self.grow)
