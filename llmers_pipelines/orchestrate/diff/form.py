"""What two versions differ in, as plain values: the command line, JSON and the page show these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..trace.form import plain


@dataclass(frozen=True)
class Change:
    """One row of the same key in both versions: column -> (before, after), changed ones alone."""

    key: Mapping[str, Any]
    title: str | None
    columns: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True)
class RowDiff:
    """Rows by ``key``; without one (no columns identify a row) whole rows, and none "changed".

    ``by_column``: changed rows per column. Examples are the first few in the order of the key.
    """

    key: tuple[str, ...]
    before: int
    after: int
    added: int
    removed: int
    changed: int
    same: int
    by_column: Mapping[str, int] = field(default_factory=dict)
    columns_added: tuple[str, ...] = ()
    columns_removed: tuple[str, ...] = ()
    added_examples: tuple[Mapping[str, Any], ...] = ()
    removed_examples: tuple[Mapping[str, Any], ...] = ()
    changed_examples: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Moved:
    """A row whose vector moved. ``text_changed`` is None where the versions keep no texts."""

    id: str
    title: str | None
    cosine: float
    text_changed: bool | None = None


@dataclass(frozen=True)
class VectorDrift:
    """How far the vectors of rows that carry knowledge in both versions moved.

    ``mean``, ``p5`` and ``least`` are of the cosine between both vectors of a row; ``unmoved`` is
    the share of equal ones. ``overlap``: mean share of the ten nearest neighbours that a row keeps,
    over ``sampled`` rows; a turned coordinate system moves the cosine and leaves this at 1.
    ``mean_same_text``: the cosine's mean over rows whose text is the same. ``incomparable`` says
    why none of this is told.
    """

    before: int
    after: int
    added: int
    removed: int
    known_gained: int  # rows that had no text and have one now
    known_lost: int
    compared: int
    width: tuple[int, int]
    mean: float | None = None
    p5: float | None = None
    least: float | None = None
    unmoved: float | None = None
    texts_changed: int | None = None
    mean_same_text: float | None = None
    overlap: float | None = None
    sampled: int = 0
    moved: tuple[Moved, ...] = ()
    incomparable: str = ""
    added_examples: tuple[str, ...] = ()
    removed_examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class MetricChange:
    metric: str
    slice: str
    before: float | None
    after: float | None
    difference_before: float | None  # to the base of each version
    difference_after: float | None


@dataclass(frozen=True)
class WeightChange:
    """One array of a model. ``relative``: norm of the change over the norm before."""

    name: str
    shape: tuple[str, str]
    norm_before: float | None
    norm_after: float | None
    relative: float | None = None
    cosine: float | None = None


@dataclass(frozen=True)
class Facts:
    """Named values that differ, before and after: code, inputs, sources, counts, settings."""

    title: str
    changes: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True)
class VersionDiff:
    """Everything in which ``after`` differs from ``before``."""

    dataset: str
    asset: str
    before: str
    after: str
    made: tuple[str, str]
    same: bool
    facts: tuple[Facts, ...]
    rows: RowDiff | None = None
    vectors: VectorDrift | None = None
    metrics: tuple[MetricChange, ...] = ()
    weights: tuple[WeightChange, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return plain data; the form of ``llmers diff --json``."""
        return plain(self)
