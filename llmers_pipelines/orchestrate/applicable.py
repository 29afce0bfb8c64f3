"""Which part of a plan can run on a data set: its tasks and what methods require of the log."""

from __future__ import annotations

from typing import Any

from ..data.tasks import CLICK_TASKS
from ..plan import Champion, Derive, Node, Table, walk
from .build import Loaded, Plan


def applicable(
    plan: Plan, nodes: list[Node], description: Any
) -> tuple[list[Node], dict[str, str]]:
    """Return (``nodes`` that can run and are of use, {method left out: reason}).

    ``nodes`` are in dependency order. What only a left-out method would read is left out as well:
    nobody pays for answers that nothing consumes.
    """
    left = {m.slug: why for m in plan.methods if (why := _lacks(m, description))}
    drop: set[Node] = {m.train for m in plan.methods if m.slug in left}
    for node in nodes:
        foreign = isinstance(node, Table) and node.table == "splits" and not _has(node, description)
        behind = not isinstance(node, Champion) and any(n in drop for n in node.inputs)
        gate = isinstance(node, Champion) and node.task not in description.tasks
        if foreign or behind or gate:
            drop.add(node)
    used = {n for node in nodes for n in node.inputs}
    keep = {n for n in nodes if n not in used} - drop
    for node in reversed(nodes):
        if node in keep:
            keep.update(n for n in node.inputs if n not in drop)
    shown = {m.slug for m in plan.methods if m.train in nodes}
    return [n for n in nodes if n in keep], {k: v for k, v in left.items() if k in shown}


def lacks_task(node: Node, description: Any) -> str:
    """Return why the splits of ``node`` cannot be cut on a data set, "" where they can."""
    if not isinstance(node, Table) or node.table != "splits" or _has(node, description):
        return ""
    return (
        f"data set {description.name!r} declares no task {node.task!r} (it has: "
        f"{', '.join(sorted(description.tasks)) or 'none'})"
    )


def _has(node: Table, description: Any) -> bool:
    return node.task in description.tasks


def _lacks(method: Loaded, description: Any) -> str:
    """Return what the data set lacks for ``method``, "" where nothing."""
    name, tasks = description.name, sorted(description.tasks)
    if method.task not in tasks:
        return (
            f"data set {name!r} declares no task {method.task!r} "
            f"(it has: {', '.join(tasks) or 'none'})"
        )
    tables = {n.table for n in walk([method.train]) if isinstance(n, Table)}
    absent = sorted(tables - {"items", "users", "interactions", "splits"} - set(description.extras))
    if absent:
        return f"data set {name!r} declares no table {absent[0]!r}"
    log, split = description.interactions, description.splits[method.task]
    there = {
        "label": bool(split.label), "rating": bool(log.rating or "rating" in log.columns),
        "scenario": bool(split.scenario),
    }  # fmt: skip
    if missing := [c for c in method.recipe.requires if not there[c]]:
        return f"data set {name!r} declares no {missing[0]} for {method.task!r}"
    told = any(isinstance(n, Derive) and n.how.tells_users for n in walk([method.train]))
    return uncut(method.train, description) if told else ""


def uncut(node: Node, description: Any) -> str:
    """Return why what ``node`` tells of users holds labels that are trained on, "" where it cannot.

    Without a cut a user of a click log is told by the training rows, which are the samples as well:
    an item is among the behaviours of a user exactly where its label says so.
    """
    tasks = [n.task for n in walk([node]) if isinstance(n, Table) and n.table == "splits"]
    found = (description.splits.get(task) for task in tasks)
    split = next((s for s in found if s and s.task in CLICK_TASKS and not s.history), None)
    if split is None:
        return ""
    other = [n for n, s in description.splits.items() if s.task == split.task and s.history]
    choose = f", or choose one that has (protocol = {other[0]!r})" if other else ""
    return (
        f"what it tells of a user are training rows, whose labels are learned: the split "
        f"{split.name!r} of data set {description.name!r} has no cut; give [splits.{split.name}] "
        f"one, history = 30{choose}"
    )
