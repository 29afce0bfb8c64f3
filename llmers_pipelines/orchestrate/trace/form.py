"""The whole way of one row, as plain values: what the CLI, the JSON document and the page show."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Named:
    """An entity beside its title; ``cosine`` where it is a neighbour."""

    id: str
    title: str | None
    cosine: float | None = None


@dataclass(frozen=True)
class CatalogRow:
    """A validated row of the catalog, as it was in the version that was read."""

    values: Mapping[str, Any]
    kind: str = "catalog"


@dataclass(frozen=True)
class LogRow:
    """What the splits hold of a user (``newest``: training items, oldest first) or of an item."""

    entity: str
    rows: Mapping[str, int]  # split -> rows
    newest: tuple[Named, ...] = ()
    kind: str = "log"


@dataclass(frozen=True)
class Prompt:
    """The messages of a question.

    ``origin``: "asked" (read from the response store, as it was sent), "rendered" (from the
    versions that the answer was made from, by the same revision of the task), or "" where it cannot
    be told; ``note`` says how far to trust it.
    """

    origin: str
    messages: tuple[Mapping[str, Any], ...] = ()
    schema: Mapping[str, Any] | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Attempt:
    """One raw answer, and at which stage it was refused ("" = accepted).

    ``stage``: cut | refusal | parse | grounding | "" ; ``parsed``: the fields, where it could be
    read. ``asked_again``: what was sent after it. ``stored``: the answer is in the response store.
    """

    raw: str | None
    stage: str = ""
    reason: str = ""
    parsed: Mapping[str, Any] | None = None
    finish_reason: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    key: str = ""
    asked: str = ""  # time of the call
    stored: bool = False
    asked_again: str = ""


@dataclass(frozen=True)
class Engine:
    """Who answered. ``identity`` is what decides an answer, the rest what computed it."""

    kind: str
    model: str
    identity: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict)
    data_cutoff: str = ""


@dataclass(frozen=True)
class AnswerRow:
    """A language model's (or template's) answer about one entity, and how it became a value."""

    status: str
    reason: str
    text: str | None
    value: Mapping[str, Any]
    prompt_revision: str
    prompt: Prompt
    engine: Engine
    attempts: tuple[Attempt, ...] = ()
    left_out: str = ""  # what the prompt did not tell of the row's data
    safety: tuple[Mapping[str, Any], ...] = ()
    note: str = ""
    kind: str = "answer"


@dataclass(frozen=True)
class VectorRow:
    """A vector with what it was made from. ``neighbours``: nearest rows that carry knowledge."""

    entity: str
    width: int
    norm: float
    known: bool  # False: a fallback, the entity has no text
    head: tuple[float, ...]
    text: str | None = None
    encoder: str = ""
    neighbours: tuple[Named, ...] = ()
    compared: int = 0  # rows that were compared
    kind: str = "vector"


@dataclass(frozen=True)
class TableRows:
    """Rows of any other table that are about the entity (``total`` of them); ``note`` sums up."""

    rows: tuple[Mapping[str, Any], ...]
    total: int
    note: str = ""
    kind: str = "table"


Content = CatalogRow | LogRow | AnswerRow | VectorRow | TableRows


@dataclass(frozen=True)
class Step:
    """One asset on the way, in the version that was read there.

    ``current``: that version is still the newest. ``also_read``: inputs without a row of this very
    entity (the catalog of a user's history). ``content`` is None where the asset holds nothing
    of the row; ``problem`` says why it cannot be shown.
    """

    asset: str
    verb: str
    data_version: str
    code_version: str
    made: str
    current: bool
    reads: tuple[str, ...]
    also_read: tuple[str, ...]
    sources: Mapping[str, str]
    flags: tuple[str, ...]
    held_by: tuple[str, ...]
    content: Content | None
    problem: str = ""


@dataclass(frozen=True)
class Onward:
    """An asset made from this one. ``holds``: it has a row of the same entity, told in ``brief``.

    ``current``: it was made from this very version, over every asset between.
    """

    asset: str
    verb: str
    data_version: str
    direct: bool
    current: bool
    holds: bool
    brief: str = ""


@dataclass(frozen=True)
class Metric:
    """A test metric beside that of the base; the interval is that of the difference over users."""

    name: str
    value: float | None
    base: float | None = None
    base_model: str | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    users: int | None = None
    verdict: str = ""
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelUse:
    """A trained model that read this asset. ``through``: the inputs by which it reached it."""

    asset: str
    data_version: str
    current: bool
    through: tuple[str, ...]
    task: str = ""
    flags: tuple[str, ...] = ()
    metric: Metric | None = None
    registered: str = ""  # name of the registered model, "" where it is not registered
    version: str = ""
    aliases: tuple[str, ...] = ()
    gate: str = ""  # promoted | stands | refused
    gate_reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Way:
    """One row, back to the catalog (``steps``, in the order of making; the last is the row's own)
    and on to what was made from it."""

    dataset: str
    asset: str
    id: str
    entity: str
    title: str | None
    data_version: str
    steps: tuple[Step, ...]
    onward: tuple[Onward, ...]
    models: tuple[ModelUse, ...]
    titles: Mapping[str, str] = field(default_factory=dict)  # of the item ids that are named above

    def as_json(self) -> dict[str, Any]:
        """Return plain data; the form of ``llmers trace --json``."""
        return plain(self)


def plain(value: Any) -> Any:
    """Return dataclasses, mappings and tuples as JSON data."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value
