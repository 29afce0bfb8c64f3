"""What a language model is to read about each item, as a table that other steps may take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from ..data.text import AttributeText, ItemText
from .derivation import DerivedTable, Given


@dataclass(frozen=True)
class ItemTexts(DerivedTable):
    """``item_id, text``: one row per item with words of its own, worded as ``text`` does.

    A step that tunes on texts and an ``Embed`` with the same ``text`` read the same words. Items
    without any are left out. No interaction is read.
    """

    rows: ClassVar[str] = "entities"
    reads_words: ClassVar[bool] = True

    text: AttributeText | ItemText = field(default_factory=AttributeText)

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        """Return the table. Source: the item table."""
        items = given.table()
        texts = self.text.texts(table=items, fields=(given.context or {}).get("fields"))
        told = [(i, t) for i, t, own in zip(texts.ids, texts.texts, texts.mask, strict=True) if own]
        table = pa.table({
            "item_id": pa.array([i for i, _ in told], pa.string()),
            "text": pa.array([t for _, t in told], pa.string()),
        })  # fmt: skip
        return table, {"items": len(texts.ids), "without_text": len(texts.ids) - len(told)}
