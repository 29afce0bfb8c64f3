"""An item model and a user model tuned together on the next item (HLLM, arXiv:2409.12740)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..plan import PlanError
from .tuner import Base, Tuner

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


@dataclass(frozen=True)
class NextItemContrast(Tuner):
    """``-log e^(s cos(h_t, v)) / (e^(s cos(h_t, v)) + sum_j e^(s cos(h_t, n_j)))``, v = item t + 1.

    Two copies of the encoder, a causal model, learn together. The item model reads an item's text
    and, with ``token``, one learned vector after it, whose last state is the item's vector (without
    it the encoder's pooling). The user model reads item vectors in place of token embeddings; h_t
    is its state after item t. ``negatives`` items are drawn for each batch from those with a text
    and shared by its positions. One whose cosine with the vector to be told exceeds ``same`` is
    left out there, and so is that item itself. s is learned, from 1 / ``tau`` on, at most
    ``most_scale``.

    ``full`` trains all weights (float32; products in bfloat16 where the base runs in it) instead of
    two adapters, and publishes them whole. ``recompute`` keeps no states of items for the backward
    pass but computes them again, a part of ``batch_tokens`` at a time. Examples have ``history``, a
    window of which the newest ``most`` + 1 items are read; the one source holds ``item_id`` and
    ``text``. Items without a text are skipped, and windows of which one item is left.
    """

    base: ClassVar[Literal["llm", "encoder"]] = "encoder"
    columns: ClassVar[tuple[str, ...]] = ("history",)

    weight_decay: float = 0.01
    warmup: float = 0.1
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    epochs: int = 5
    max_tokens: int = 256
    most: int = 10
    negatives: int = 512
    tau: float = 0.07
    most_scale: float = 100.0
    same: float = 0.99
    token: bool = True
    full: bool = False
    recompute: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.most, self.negatives) < 1 or min(self.tau, self.most_scale) <= 0:
            raise PlanError(
                f"NextItemContrast(most={self.most}, negatives={self.negatives}, tau={self.tau}, "
                f"most_scale={self.most_scale}): at least 1 item and 1 negative, the others above 0"
            )
        if not 0 < self.same <= 1:
            raise PlanError(
                f"NextItemContrast(same={self.same}): a cosine in (0, 1], above which an item is "
                "no negative"
            )

    def objective(self, base: Base, examples: pa.Table, *sources: Any) -> Any:
        from .next_item_contrast_net import NextItemTask

        return NextItemTask(self, base, examples, sources[0] if sources else None)

    def reader(self, base: Base, home: Path, vectors: Any) -> Any:
        from .next_item_contrast_net import load_user_model

        return load_user_model(base, home / "user")

    def states(self, base: Base, home: Path, sequences: Sequence[np.ndarray]) -> np.ndarray:
        """Return float32 (n, E): the user model's states after sequences of item vectors."""
        from .next_item_contrast_net import user_states

        return user_states(base, home / "user", [s[-self.most :] for s in sequences])
