"""A shallow student learns a deep teacher's states, layer by layer (SLMRec, arXiv:2405.17890)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class LayerDistillation(Enhancement):
    """``sum_k w (1 - mean cos(P_k h_S, h_T)) + n mean ||P_k h_S - h_T||_2`` over k = 1..blocks.

    h_S is the student's state after layer ``k (layers // blocks)``, h_T the teacher's state of its
    k-th kept layer after the same training position; w is ``weight``, n ``norm_weight``. P_k is a
    linear map where teacher and student differ in width (``project="auto"``; "always" trains one at
    equal widths too), else nothing. ``teacher`` is a node of rows user_id, position, layer, vec;
    positions without rows are not taught. Nothing of it is served.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"layer_states", "extra_loss"})

    teacher: Node | None = None
    blocks: int = 4
    weight: float = 1.0
    norm_weight: float = 0.1
    project: str = "auto"

    def __post_init__(self) -> None:
        if self.teacher is None:
            raise PlanError("LayerDistillation needs `teacher`, a node of hidden states")
        if self.project not in ("auto", "always"):
            raise PlanError(
                f"LayerDistillation: project is {self.project!r}; use 'auto' or 'always'"
            )
        if self.blocks < 1 or self.weight < 0 or self.norm_weight < 0:
            raise PlanError("LayerDistillation: blocks is at least 1, no weight below 0")

    def misfit(self, backbone: Any) -> str:
        return _too_shallow(backbone, self.blocks)

    def inert(self) -> LayerDistillation:
        """Return a part whose losses have no weight."""
        return replace(self, weight=0.0, norm_weight=0.0)

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
        from ..models.layer_blocks import block_layers
        from .layer_distillation_net import LayerHook, teacher_states

        layers = block_layers(len(model.blocks), self.blocks)
        told = teacher_states(inputs[self.teacher], data, self.blocks, self.teacher.name)
        model.keeps_layers = True
        return LayerHook(told, layers, model.item_table.weight.shape[1], self)


@dataclass(frozen=True)
class DeepSupervision(Enhancement):
    """``w sum_k CE(Z D_k h_k)`` over the ends of all blocks but the last, k = 1..blocks - 1.

    h_k is the state after layer ``k (layers // blocks)`` at each trained position, D_k a map of its
    own without bias, Z the frozen item vectors of ``source``; the target is the next item. Layers
    are counted by ``layers // blocks``, never by the number of hidden states, which is one more.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"layer_states", "extra_loss"})

    source: Node | None = None
    blocks: int = 4
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.source is None:
            raise PlanError("DeepSupervision needs `source`, a node of item vectors")
        if self.blocks < 1 or self.weight < 0:
            raise PlanError("DeepSupervision: blocks is at least 1, weight not below 0")

    def misfit(self, backbone: Any) -> str:
        return _too_shallow(backbone, self.blocks)

    def inert(self) -> DeepSupervision:
        """Return a part whose losses have no weight."""
        return replace(self, weight=0.0)

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
        from ..models.layer_blocks import block_layers
        from .layer_distillation_net import HeadsHook
        from .tables_net import item_vectors

        layers = block_layers(len(model.blocks), self.blocks)[:-1]
        vectors = item_vectors(inputs[self.source], data.items, self.source.name, missing="mean")
        model.keeps_layers = True
        return HeadsHook(vectors, layers, model.item_table.weight.shape[1], self.weight)


def _too_shallow(backbone: Any, blocks: int) -> str:
    from ..models.layer_blocks import block_layers

    try:
        block_layers(getattr(backbone, "layers", blocks), blocks)
    except ValueError as error:
        return f"{error}, or backbone_settings = {{ layers = {blocks} }}"
    return ""
