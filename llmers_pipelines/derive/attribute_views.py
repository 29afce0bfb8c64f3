"""Two views of an item's attributes, for contrast: shuffled, some dropped (LLMEmb, AAAI 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from ..data.text import attribute_pairs, worded
from ..data.training import TrainingData
from .derivation import Derivation


@dataclass(frozen=True)
class AttributeViews(Derivation):
    """Examples ``first``, ``second``: ``views`` pairs of texts of each item.

    A text is ``instruction`` and ``attribute is value; ...`` with the attributes in random order
    and a share ``drop`` of them left out, at least one of them kept. Items with fewer than two
    attributes have one view only and are left out. What records behaviour (sales ranks, also
    bought) must not be declared as text or category, or not be named in ``fields``. Equal ``seed``,
    equal views; those of an item depend on its own attributes alone. No interaction is read.
    """

    output: ClassVar[Literal["vectors", "table"]] = "table"
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

    def apply(
        self,
        sources: Sequence[Any],
        *,
        log: TrainingData | None = None,
        state_folder: Path | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> tuple[pa.Table, dict[str, Any]]:
        """Return one row per item with at least two attributes; ``sources``: the item table."""
        items = next(s for s in sources if isinstance(s, pa.Table))
        found = attribute_pairs(items, self.fields, (context or {}).get("fields"), self.most)
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
