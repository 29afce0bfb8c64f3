"""What a ``Derive`` node runs: a component with ``apply``, and what several of them share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from ..data.training import HISTORY, TRAIN, TrainingData
from ..data.vectors import VectorTable
from ..plan import Component

CHUNK = 16_384  # rows at a time: a memory-mapped table need not fit into memory


@dataclass(frozen=True)
class Derivation(Component):
    """A pure function of artifacts; ``make`` says which.

    ``output`` is what it publishes: a ``VectorTable`` or (``DerivedTable``) a ``pyarrow.Table``.
    """

    output: ClassVar[Literal["vectors", "table"]] = "vectors"
    # Of a table: neighbours, candidates, entities (one row per id, by its first column, which a
    # prompt's rows may be joined with), edges (of users and items), ... It decides the checks.
    rows: ClassVar[str] = "neighbours"
    reads_words: ClassVar[bool] = False  # is given a ``context``: declared columns, the domain
    # Vectors of users made of their rows: refused on a click log without a cut, where the rows that
    # are told are those whose labels are learned.
    tells_users: ClassVar[bool] = False

    def apply(
        self,
        sources: Sequence[Any],
        *,
        log: TrainingData | None = None,
        state_folder: Path | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Return the artifact and JSON-ready facts about it.

        ``log`` counts as a source. ``state_folder`` keeps what was fitted, so that new rows meet
        the old fit.
        """
        found = sources if log is None else (log, *(s for s in sources if s is not log))
        return self.make(Given(self, tuple(found), state_folder, context))

    def make(self, given: Given) -> tuple[Any, dict[str, Any]]:
        """Return what ``apply`` does, from what it was given."""
        raise NotImplementedError

    def vectors_in(self, sources: Sequence[Any]) -> VectorTable:
        """Return the one vector table among the sources."""
        tables = [s for s in sources if isinstance(s, VectorTable)]
        if len(tables) != 1:
            kinds = ", ".join(type(s).__name__ for s in sources) or "nothing"
            raise ValueError(f"{type(self).__name__} reduces one vector table; got {kinds}")
        return tables[0]

    def log_in(self, sources: Sequence[Any], log: TrainingData | None = None) -> TrainingData:
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


@dataclass(frozen=True)
class DerivedTable(Derivation):
    """A derivation that publishes a ``pyarrow.Table``; ``rows`` says of what."""

    output: ClassVar[Literal["vectors", "table"]] = "table"


@dataclass(frozen=True)
class Given:
    """What ``owner`` is made from. What is asked for and is not there raises ValueError."""

    owner: Derivation
    sources: tuple[Any, ...]
    state_folder: Path | None = None
    context: Mapping[str, Any] | None = None

    @property
    def log(self) -> TrainingData:
        """The log of a task, with its splits."""
        return self.owner.log_in(self.sources)

    @property
    def vectors(self) -> VectorTable:
        """The one vector table."""
        return self.owner.vectors_in(self.sources)

    @property
    def tables(self) -> list[pa.Table]:
        """The tables, in the order of the sources."""
        return [s for s in self.sources if isinstance(s, pa.Table)]

    def table(self, *columns: str) -> pa.Table:
        """Return the first table that has ``columns``."""
        for table in self.tables:
            if set(columns) <= set(table.column_names):
                return table
        there = "; ".join(", ".join(t.column_names) for t in self.tables) or "no table"
        needed = f" with {', '.join(columns)}" if columns else ""
        raise ValueError(f"{type(self.owner).__name__} needs a table{needed}; found {there}")


def told_rows(data: TrainingData) -> np.ndarray:
    """Return bool[R]: rows that prompts may tell of, the training rows.

    Where a cut is declared, the HISTORY rows before it alone: none of them becomes a label.
    """
    history = data.split == HISTORY
    return history if history.any() else data.split == TRAIN


def project(table: VectorTable, matrix: np.ndarray, offset: np.ndarray) -> VectorTable:
    """Return ``(vectors - offset) @ matrix`` for every row, fallback rows included.

    The map is affine, so a fallback that is the mean vector stays the mean vector.
    """
    out = np.empty((len(table.ids), matrix.shape[1]), np.float32)
    for start in range(0, len(out), CHUNK):
        rows = np.asarray(table.vectors[start : start + CHUNK], np.float64)
        out[start : start + CHUNK] = (rows - offset) @ matrix
    return VectorTable(table.entity, table.ids, out, table.mask)
