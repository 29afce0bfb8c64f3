"""Tuning of upper layers over stored behaviours, by clicks (BAHE, arXiv:2403.19347)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from .tuner import Base, Tuner

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


@dataclass(frozen=True)
class DeepClicks(Tuner):
    """``BCE(label, head([u; v; u v]))``: a user's behaviours and an item through the upper layers.

    A decoder is split at the layer k at which the configured encoder reads its states
    (``...?layer=k&pooling=mean&normalize=0``): layers 1 to k made the behaviours' vectors, stored
    by their text; layers k + 1 to K, with the adapter, read a sequence of such vectors in
    place of token embeddings, one position per behaviour. u and v are their pooled states. The head
    (layer norm and one linear layer) is of the tuning alone. Examples have ``history``, ``item_id``
    and ``label``; the source of the node is the table of vectors. With k = K nothing is left to
    tune, which is an error.
    """

    base: ClassVar[Literal["llm", "encoder"]] = "encoder"
    columns: ClassVar[tuple[str, ...]] = ("history", "item_id", "label")
    partial: ClassVar[bool] = True  # its adapter is for a part of the model

    def objective(self, base: Base, examples: pa.Table, *sources: Any) -> Any:
        from .deep_clicks_net import DeepClicksTask

        return DeepClicksTask(self, base, examples, sources[0] if sources else None)

    def states(self, base: Base, home: Path, sequences: Sequence[np.ndarray]) -> np.ndarray:
        from .deep_clicks_net import deep_states

        return deep_states(base, home / "adapter", sequences)
