"""Which part of a plan can run on a data set: its tasks and the columns that methods require."""

from __future__ import annotations

from typing import Any

from ..plan import Champion, Node, Table
from .build import Plan


def applicable(
    plan: Plan, nodes: list[Node], description: Any
) -> tuple[list[Node], dict[str, str]]:
    """Return (nodes that can run, {method or asset left out: reason})."""
    tasks = set(description.tasks)
    left: dict[str, str] = {}
    drop: set[Node] = set()
    for node in nodes:
        lacks = isinstance(node, Table) and node.table == "splits" and node.task not in tasks
        if lacks or any(n in drop for n in node.inputs if not isinstance(node, Champion)):
            drop.add(node)
        if isinstance(node, Champion) and node.task not in tasks:
            drop.add(node)
    for method in plan.methods:
        if method.train in drop:
            left[method.slug] = (
                f"data set {description.name!r} declares no task {method.task!r} "
                f"(it has: {', '.join(sorted(tasks)) or 'none'})"
            )
    return [n for n in nodes if n not in drop], left
