"""A masked language model and a CTR model, pretrained together (FLIP, RecSys'24)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..models.seams import Backbone
from ..plan import PlanError
from .tuner import Base, Tuner

if TYPE_CHECKING:
    import pyarrow as pa

    from ..data.training import TrainingData


@dataclass(frozen=True)
class FieldAlignment(Tuner):
    """``contrast * L_ICL + words * L_MLM + fields * L_MTM`` (FLIP, arXiv:2310.19453).

    A row is read twice: as a fenced text by the language model (token states T, the first one is
    its CLS) and as fields by the backbone (r, what its last linear layers read). L_ICL is InfoNCE
    of both, projected to ``project``, dot products over ``tau``. L_MLM tells the tokens of masked
    fields from ``[T_t ; r]``, the table complete. L_MTM tells the masked values of the table from
    ``[r ; attention of r over T]``, the text complete, against ``noise`` values of the field. A
    share ``ratio`` of the row's fields is masked, at least one, in text and table alike, and each
    field that tells a part of a masked value. No row's own label is read; the labels of earlier
    training rows say what a history tells as liked.

    Published are the backbone's weights below its last linear layers (``heads.safetensors``).
    ``whole`` trains all weights of the language model, which is then left behind; without it the
    adapter ``lora`` is trained and published beside. Examples are those of ``FencedRows``, the
    node's context is the log. How the backbone is fitted later is no part of this.
    """

    revision: ClassVar[int] = 2  # masks close what tells a part of a masked value
    base: ClassVar[Literal["llm", "encoder"]] = "encoder"
    columns: ClassVar[tuple[str, ...]] = (
        "row", "user_id", "item_id", "fields", "parts", "text",
    )  # fmt: skip

    backbone: Backbone | None = None
    whole: bool = True
    ratio: float = 0.15
    tau: float = 0.7
    project: int = 128
    dropout: float = 0.2
    noise: int = 25
    head: int = 32  # width of the state that tells one field
    contrast: float = 1.0
    words: float = 1.0
    fields: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backbone is None or "trunk" not in self.backbone.seams:
            name = type(self.backbone).__name__ if self.backbone else "none"
            raise PlanError(
                f"FieldAlignment: the backbone ({name}) has no seam 'trunk'; use DCNv2, DeepFM or "
                "AutoInt"
            )
        if not 0 < self.ratio <= 1 or self.tau <= 0 or min(self.noise, self.head) < 1:
            raise PlanError(
                f"FieldAlignment(ratio={self.ratio}, tau={self.tau}, noise={self.noise}, "
                f"head={self.head}): ratio a share in (0, 1], tau above 0, the others at least 1"
            )
        weights = (self.contrast, self.words, self.fields)
        if min(weights) < 0 or not any(weights) or self.batch < 2:
            raise PlanError(
                f"FieldAlignment(contrast={self.contrast}, words={self.words}, "
                f"fields={self.fields}, batch={self.batch}): weights of at least 0, one of them "
                "above, and at least 2 rows in a batch"
            )
        usual: Any = type(self.backbone)()
        own: Any = dataclasses.replace(self.backbone, fit=usual.fit)
        object.__setattr__(self, "backbone", own)

    @property
    def has_adapter(self) -> bool:
        return not self.whole

    def objective(self, base: Base, examples: pa.Table, *sources: TrainingData) -> Any:
        from .field_alignment_net import FieldAlignmentTask

        return FieldAlignmentTask(self, base, examples, *sources)
