"""A causal model learns to tell the next item from item vectors (E4SRec form, used by SLMRec)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from .tuner import Base, Tuner

if TYPE_CHECKING:
    import pyarrow as pa

    from ..data.vectors import VectorTable


@dataclass(frozen=True)
class ItemPrompt(Tuner):
    """``L = -log softmax(T D h)_target`` over all items.

    h is the last token's state of the last layer for the prompt ``before``, one vector per item of
    the history mapped by a linear layer, ``after``; T the frozen item vectors (the node's one
    context), D a linear map without bias. The two maps are trained with the adapter and published
    beside it. Examples have ``history`` (item ids, oldest first; the newest ``most`` are read) and
    ``target`` (an item id).
    """

    base: ClassVar[Literal["llm", "encoder"]] = "llm"
    columns: ClassVar[tuple[str, ...]] = ("history", "target")

    most: int = 30
    before: str = "The user has chosen these items, oldest first:"
    after: str = "\nThe next item is"

    def objective(self, base: Base, examples: pa.Table, *context: VectorTable) -> Any:
        from .item_prompt_net import ItemPromptTask

        return ItemPromptTask(self, base, examples, *context)

    def reader(self, base: Base, home: Path, vectors: VectorTable) -> Any:
        import numpy as np
        import torch

        from ..llm.hf_soft import load_soft_prompt

        return load_soft_prompt(
            base.folder, home / "adapter", home / "heads.safetensors",
            torch.from_numpy(np.array(vectors.vectors, np.float32)), self.before, self.after,
            dtype=base.dtype, device=base.device,
        )  # fmt: skip
