"""From one node to the others: rewriting a tree, the union of several, and their keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from .node import Component, Node, holds_node, names_of


def rewrite(
    value: Any, change: Callable[[Node], Node], memo: dict[Node, Node] | None = None
) -> Any:
    """Return ``value`` with ``change`` applied to every node, inputs first; equal stays shared."""
    memo = {} if memo is None else memo
    match value:
        case Node():
            if value not in memo:
                memo[value] = change(_rebuild(value, change, memo))
            return memo[value]
        case Component():
            return _rebuild(value, change, memo) if holds_node(value) else value
        case tuple():
            return tuple(rewrite(v, change, memo) for v in value)
    return value


def _rebuild(value: Any, change: Callable[[Node], Node], memo: dict[Node, Node]) -> Any:
    fields = {n: rewrite(getattr(value, n), change, memo) for n in names_of(type(value))}
    return value.remade(fields) if isinstance(value, Node) else type(value)(**fields)


class PlanError(ValueError):
    """The plan cannot be built; the message names the recipes and the mend."""


def walk(roots: Iterable[Node]) -> list[Node]:
    """Return the union of all nodes below ``roots`` in dependency order, each once."""
    done: dict[Node, None] = {}
    stack: list[tuple[Node, bool]] = [(r, False) for r in reversed(list(roots))]
    while stack:
        node, expanded = stack.pop()
        if node in done:
            continue
        if expanded:
            done[node] = None
        else:
            stack.append((node, True))
            stack.extend((n, False) for n in reversed(node.inputs))
    return list(done)


def check_keys(nodes: Iterable[Node], owner: dict[Node, str] | None = None) -> None:
    """Raise ``PlanError`` when two different nodes share a key, naming both owners."""
    seen: dict[tuple[str, str], Node] = {}
    for node in nodes:
        for part in node.key:
            if not re.fullmatch(r"[a-z0-9_]+", part):
                raise PlanError(f"asset key {node.name!r}: only a-z, 0-9 and _ are allowed")
        other = seen.setdefault(node.key, node)
        if other.digest != node.digest:
            who = [(owner or {}).get(n, "a recipe") for n in (other, node)]
            raise PlanError(
                f"{who[0]} and {who[1]} both make {node.name!r} with different settings; load one "
                "of them, or give both equal settings"
            )
