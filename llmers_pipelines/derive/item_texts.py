"""What a language model is to read about each item, as a table that other steps may take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa

from ..data.text import AttributeText, ItemText
from ..data.training import TrainingData
from .derivation import Derivation


@dataclass(frozen=True)
class ItemTexts(Derivation):
    """``item_id, text``: one row per item with words of its own, worded as ``text`` does.

    A step that tunes on texts and an ``Embed`` with the same ``text`` read the same words. Items
    without any are left out. No interaction is read.
    """

    output: ClassVar[Literal["vectors", "table"]] = "table"
    rows: ClassVar[str] = "entities"
    reads_words: ClassVar[bool] = True

    text: AttributeText | ItemText = field(default_factory=AttributeText)

    def apply(
        self,
        sources: Sequence[Any],
        *,
        log: TrainingData | None = None,
        state_folder: Path | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> tuple[pa.Table, dict[str, Any]]:
        """Return the table; ``sources``: the item table."""
        items = next(s for s in sources if isinstance(s, pa.Table))
        texts = self.text.texts(table=items, fields=(context or {}).get("fields"))
        told = [(i, t) for i, t, own in zip(texts.ids, texts.texts, texts.mask, strict=True) if own]
        table = pa.table({
            "item_id": pa.array([i for i, _ in told], pa.string()),
            "text": pa.array([t for _, t in told], pa.string()),
        })  # fmt: skip
        return table, {"items": len(texts.ids), "without_text": len(texts.ids) - len(told)}
