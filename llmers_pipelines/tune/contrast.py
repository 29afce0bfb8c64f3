"""Contrastive tuning of a text encoder: two views of the same thing come closer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..plan import PlanError
from .tuner import Base, Tuner

if TYPE_CHECKING:
    import pyarrow as pa

LOSSES = ("info_nce", "soft_target")


@dataclass(frozen=True)
class Contrast(Tuner):
    """Views of one example are alike, views of the others of its batch are not.

    Examples have ``first`` and ``second``, lists of texts of equal length; epoch e reads the pair
    at place e, beginning anew where the list ends. Vectors are pooled as the encoder pools.
    ``loss``: "info_nce" (normalized, temperature ``tau``), or "soft_target", LLMEmb's released
    form (not normalized; with ``learn_tau`` the temperature is trained, from ``tau`` on). A batch
    is compared as a whole, so all of it must fit on the device.
    """

    base: ClassVar[Literal["llm", "encoder"]] = "encoder"
    columns: ClassVar[tuple[str, ...]] = ("first", "second")

    loss: Literal["info_nce", "soft_target"] = "info_nce"
    tau: float = 0.07
    learn_tau: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in LOSSES:
            raise PlanError(f"Contrast: loss is {self.loss!r}; use one of {LOSSES}")
        if self.tau <= 0 or self.batch < 2:
            raise PlanError(
                f"Contrast(tau={self.tau}, batch={self.batch}): tau above 0, at least 2 in a batch"
            )

    def objective(self, base: Base, examples: pa.Table) -> Any:
        from .contrast_net import ContrastTask

        return ContrastTask(self, base, examples)
