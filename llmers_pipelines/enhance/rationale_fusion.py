"""Texts about users and items beside, or in place of, what ids say (SLIM, WWW 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class RationaleFusion(Enhancement):
    """Both sides of the score through one pair of maps over frozen texts.

    ``mode`` "id": ``z_i = g_f([g_l(t_i); e_i])``, ``s_u = g_f([g_l(t_u); h_u])`` with the linear
    g_l of the texts' width and g_f of twice the backbone's, both shared by items and users; e_i is
    the backbone's item output, h_u its state. "text": ``z_i = g_t(t_i)``, ``s_u = g_t(t_u)``, no id
    is read. The score stays the product of the two. g_f starts with the identity over the ids and
    a small map of the texts, so that training begins near the backbone.

    t_u was written from the oldest ``share`` of a user's training rows: it is shown to targets
    behind that cut alone. Targets before it, users without a text, unknown users and items without
    a text get one learned vector in place of ``g_l(t)``. Users' sides fold into a table by user,
    items' into the item table: no text is served.
    """

    needs: ClassVar[frozenset[str]] = frozenset(
        {"item_output", "user_state", "hidden_states", "item_table"}
    )

    items: Node | None = None
    users: Node | None = None
    mode: Literal["id", "text"] = "id"
    share: float = 0.7
    weight: float = 1.0  # 0 leaves the backbone as it is

    def __post_init__(self) -> None:
        if self.items is None or self.users is None:
            raise PlanError("RationaleFusion needs `items` and `users`, vectors of their texts")
        if self.mode not in ("id", "text") or not 0 < self.share < 1:
            raise PlanError(
                f"RationaleFusion(mode={self.mode!r}, share={self.share}): mode is 'id' or 'text', "
                "share between 0 and 1"
            )

    def inert(self) -> RationaleFusion:
        """Return a part that passes items and states on as they are."""
        return replace(self, weight=0.0)

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
        """Return the hook; ValueError where items and users were not encoded alike."""
        import torch

        from .rationale_fusion_net import FusionHook, cutoffs

        sides = {}
        for name, node, ids in (("item", self.items, data.items), ("user", self.users, data.users)):
            table = inputs[node]
            if table.entity != name:
                raise ValueError(f"{node.name}: vectors of {table.entity}s, expected {name}s")
            vectors, real = table.aligned(ids)
            sides[name] = torch.from_numpy(vectors), torch.from_numpy(real)
        widths = [sides[n][0].shape[1] for n in ("item", "user")]
        if widths[0] != widths[1]:
            raise ValueError(
                f"{self.items.name} has width {widths[0]}, {self.users.name} {widths[1]}: one map "
                "reads both, so encode both with one encoder"
            )
        width = model.item_output().shape[1]
        hook = FusionHook(*sides["item"], *sides["user"], width, self.mode, self.weight)
        hook.cut.copy_(cutoffs(data, self.share))
        return hook
