"""Hands to run one step with a part of it spoiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from shop import Shop

from llmers_pipelines.orchestrate.steps import evaluate, run_verb
from llmers_pipelines.plan import Node

Patch = pytest.MonkeyPatch


def step_checks(shop: Shop, node: Node, folder: Path) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    made = run_verb(node, shop.context())
    made.save(folder)
    found = (*made.checks, *(made.verify(folder) if made.verify else ()))
    return {c.name: c for c in found}


def named(shop: Shop, pattern: str) -> Node:
    return next(n for n in shop.plan().nodes if n.name.startswith(pattern))


def wrapped(monkeypatch: Patch, owner: Any, name: str, change: Callable[..., Any]) -> None:
    """Let ``change(right, *args, **more)`` stand for a function."""
    right = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **more: change(right, *args, **more))


@dataclasses.dataclass(frozen=True)
class Ranked:
    """A cell whose ranks are those of another one, moved."""

    cell: Any
    up: int
    like: Any
    column: str = "rank"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cell, name)

    def table(self, split: str) -> pa.Table:
        rows = self.like.table(split)
        values = np.maximum(1, rows[self.column].to_numpy() - self.up)
        at = rows.schema.get_field_index(self.column)
        made = pa.array(values, rows.schema.field(at).type)
        return rows.set_column(at, self.column, made)


def ranks(monkeypatch: Patch, **up: int) -> None:
    """Let each named arm rank its targets ``up`` places above the base of the first seed."""

    def moved(right: Any, *args: Any) -> Any:
        found = right(*args)
        like = found["base", 0]
        return {k: Ranked(c, up[k[0]], like) if k[0] in up else c for k, c in found.items()}

    wrapped(monkeypatch, evaluate, "gather", moved)
