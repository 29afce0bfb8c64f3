"""Two views of an item's attributes, for contrast: shuffled, some dropped (LLMEmb, AAAI 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ..data.text import attribute_pairs, worded
from .derivation import DerivedTable, Given


@dataclass(frozen=True)
class AttributeViews(DerivedTable):
    """Examples ``first``, ``second``: ``views`` pairs of texts of each item.

    A text is ``instruction`` and ``attribute is value; ...`` with the attributes in random order
    and a share ``drop`` of them left out, at least one of them kept. Items with fewer than two
    attributes have one view only and are left out. What records behaviour (sales ranks, also
    bought) must not be declared as text or category, or not be named in ``fields``. Equal ``seed``,
    equal views; those of an item depend on its own attributes alone. No interaction is read.
    """

    rows: ClassVar[str] = "examples"
    reads_words: ClassVar[bool] = True

    drop: float = 0.4
    views: int = 8
    fields: tuple[str, ...] = ()
    most: int = 100  # characters of a value
    instruction: str = "The item has the following attributes:"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.drop < 1 or self.views < 1:
            raise ValueError(
                f"AttributeViews(drop={self.drop}, views={self.views}): drop is a share in [0, 1), "
                "at least 1 pair of views"
            )

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        """Return one row per item with at least two attributes. Source: the item table."""
        items = given.table()
        found = attribute_pairs(items, self.fields, (given.context or {}).get("fields"), self.most)
        rows = [(i, pairs) for i, pairs in zip(items["item_id"].to_pylist(), found, strict=True)
                if len(pairs) > 1]  # fmt: skip
        made = [(i, self._views(i, pairs, 0), self._views(i, pairs, 1)) for i, pairs in rows]
        names = ("example_id", "first", "second")
        columns = zip(*made, strict=True) if made else ((), (), ())
        kinds = (pa.string(), pa.list_(pa.string()), pa.list_(pa.string()))
        table = pa.table({n: pa.array(list(c), k)
                          for n, c, k in zip(names, columns, kinds, strict=True)})  # fmt: skip
        return table, {"items": len(found), "one_attribute_or_none": len(found) - len(rows)}

    def _views(self, item: str, pairs: list[tuple[str, str]], side: int) -> list[str]:
        rng = np.random.default_rng([self.seed, side, *item.encode()])
        keep = max(1, len(pairs) - int(np.floor(self.drop * len(pairs))))
        return [
            worded(self.instruction, [pairs[p] for p in rng.permutation(len(pairs))[:keep]])
            for _ in range(self.views)
        ]
