"""What a ``Derive`` node runs: a component with ``apply``, and what several of them share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from ..data.training import TrainingData
from ..data.vectors import VectorTable
from ..plan import Component

CHUNK = 16_384  # rows at a time: a memory-mapped table need not fit into memory


@dataclass(frozen=True)
class Derivation(Component):
    """A pure function of artifacts.

    ``output`` says what ``apply`` publishes: a ``VectorTable`` or a ``pyarrow.Table``.
    ``needs_log``: give it the ``TrainingData``, as ``log`` or among the sources.
    """

    output: ClassVar[Literal["vectors", "table"]] = "vectors"
    rows: ClassVar[str] = "neighbours"  # of a table: its kind of rows, which decides its checks
    reads_words: ClassVar[bool] = False  # `apply` gets ``context``: declared columns, the domain

    @property
    def needs_log(self) -> bool:
        return False

    def apply(
        self,
        sources: Sequence[Any],
        *,
        log: TrainingData | None = None,
        state_folder: Path | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Return the artifact and JSON-ready facts about it.

        ``state_folder`` keeps what was fitted, so that new rows meet the old fit.
        """
        raise NotImplementedError

    def vectors_in(self, sources: Sequence[Any]) -> VectorTable:
        """Return the one vector table among the sources."""
        tables = [s for s in sources if isinstance(s, VectorTable)]
        if len(tables) != 1:
            kinds = ", ".join(type(s).__name__ for s in sources) or "nothing"
            raise ValueError(f"{type(self).__name__} reduces one vector table; got {kinds}")
        return tables[0]

    def log_in(self, sources: Sequence[Any], log: TrainingData | None) -> TrainingData:
        """Return the log: the argument, or the one among the sources."""
        for source in (log, *sources):
            if isinstance(source, TrainingData):
                return source
        raise ValueError(
            f"{type(self).__name__} needs the splits of a task: "
            f"Derive({type(self).__name__}(...), vectors, splits(...))"
        )

    def check_width(self, dim: int, table: VectorTable) -> None:
        """Raise where the reducer's ``dim`` is not between 1 and the width of ``table``."""
        if not 1 <= dim <= table.dim:
            raise ValueError(
                f"{type(self).__name__}(dim={dim}) cannot come from vectors of width {table.dim}; "
                f"choose dim (or the backbone's width) up to {table.dim}"
            )


def project(table: VectorTable, matrix: np.ndarray, offset: np.ndarray) -> VectorTable:
    """Return ``(vectors - offset) @ matrix`` for every row, fallback rows included.

    The map is affine, so a fallback that is the mean vector stays the mean vector.
    """
    out = np.empty((len(table.ids), matrix.shape[1]), np.float32)
    for start in range(0, len(out), CHUNK):
        rows = np.asarray(table.vectors[start : start + CHUNK], np.float64)
        out[start : start + CHUNK] = (rows - offset) @ matrix
    return VectorTable(table.entity, table.ids, out, table.mask)
