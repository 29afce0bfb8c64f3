"""What became of one row, and the table of all rows that a Generate asset publishes."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..prompts.task import PromptTask

_ACCEPTED = ("ok", "repaired", "fallback")
_OWN = ("text", "status", "reason", "raw", "request_key", "prompt_revision", "model",
        "truncated")  # fmt: skip
_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


@dataclass(frozen=True)
class Outcome:
    """``value`` holds the answer's fields; it counts only with status ok, repaired or fallback."""

    row_id: str
    row: Mapping[str, Any]
    value: Mapping[str, Any] | None = None
    status: str = "ok"  # ok | repaired | no_answer | quarantined | fallback
    reason: str = ""
    raw: str | None = None
    key: str = ""
    left_out: str = ""  # what the prompt did not tell of the row's data

    def refused(self, reason: str) -> Outcome:
        return dataclasses.replace(self, status="quarantined", reason=reason)


def to_table(task: PromptTask, outcomes: Sequence[Outcome], model: str) -> pa.Table:
    """Return id, text, one column per answer field, status, reason, raw, request_key, ...

    ``text`` and the fields are null where no answer was accepted; ``raw`` keeps what was refused.
    """
    values = [o.value if o.status in _ACCEPTED else None for o in outcomes]
    columns: dict[str, pa.Array] = {
        task.id_column: pa.array([o.row_id for o in outcomes], pa.string()),
        "text": pa.array([None if v is None else task.text(v) for v in values], pa.string()),
    }
    for name, hint in field_types(task).items():
        columns[name] = pa.array([None if v is None else v[name] for v in values], hint)
    columns |= {
        "status": pa.array([o.status for o in outcomes], pa.string()),
        "reason": pa.array([o.reason or None for o in outcomes], pa.string()),
        "raw": pa.array([o.raw for o in outcomes], pa.string()),
        "request_key": pa.array([o.key or None for o in outcomes], pa.string()),
        "prompt_revision": pa.array([task.prompt_revision] * len(outcomes), pa.string()),
        "model": pa.array(
            ["no LLM (template)" if o.status == "fallback" else model for o in outcomes],
            pa.string(),
        ),
        "truncated": pa.array([o.left_out or None for o in outcomes], pa.string()),
    }
    return pa.table(columns)


def field_types(task: PromptTask) -> dict[str, pa.DataType]:
    """Return the Arrow type of each answer field beside ``text``."""
    if task.free_text:
        return {}
    form = task.published or task.answer
    hints = typing.get_type_hints(form)
    fields = {name: hints[name] for name in form.model_fields}
    taken = sorted(set(fields) & {*_OWN, task.id_column})
    if taken:
        raise TypeError(
            f"{form.__name__}.{taken[0]}: the name belongs to a column of every answer "
            "table; rename the field"
        )
    return {name: _arrow(hint, f"{form.__name__}.{name}") for name, hint in fields.items()}


def _arrow(hint: Any, where: str) -> pa.DataType:
    if hint in _TYPES:
        return _TYPES[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return _arrow(type(arguments[0]), where)
    if origin is list:
        return pa.list_(_arrow(arguments[0], where))
    if origin in (typing.Union, types.UnionType):
        given = [a for a in arguments if a is not type(None)]
        if len(given) == 1:
            return _arrow(given[0], where)
    raise TypeError(
        f"{where}: no column type for {hint!r}; use str, int, float, bool, Literal, a list of "
        "these, or one of them or None"
    )
