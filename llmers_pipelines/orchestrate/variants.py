"""Variants of one method side by side: a key for each node, a pin for each model (no Dagster).

A key is readable because it leaves out most of what a node is made of. Where two different nodes of
a plan would go by one key, the first (in the order of llmers.toml) keeps it, and later ones get a
mark: the hash of what they are made from, without models and revisions. So a method that is
appended renames nothing, and a name outlives another language model or a raised revision.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from ..plan import Component, Node, Pin, Train, canonical, rewrite, sha, snake, walk

_SHOWN = 4  # differences that a description names


def told_apart(roots: Iterable[Node]) -> dict[Node, Node]:
    """Return the nodes below ``roots`` under keys of their own; nothing where no two clash."""
    roots, taken = tuple(roots), {}
    if all(taken.setdefault(n.key, n.digest) == n.digest for n in walk(roots)):
        return {}
    taken = {}

    def named(node: Node) -> Node:
        # Inputs come first, so that most of what is made of a marked node needs no mark itself.
        if taken.setdefault(node.key, node.digest) != node.digest:
            fields = {f.name: getattr(node, f.name) for f in dataclasses.fields(node)}
            node = node.remade({**fields, "mark": mark_of(node)})
            taken.setdefault(node.key, node.digest)
        return node

    names: dict[Node, Node] = {}
    rewrite(roots, named, names)
    return names


def with_own_pins(train: Train, pins: dict[tuple[str, str], Pin]) -> Train:
    """Return ``train`` with the pins of the methods before it, collected in ``pins``.

    A role is one pin, whatever settings its backbone has: the first method's stands. A model whose
    log or parts are others is another model, and its pin gets a role of its own: else the rounds of
    one variant would read the training of another.
    """

    def kept(node: Node) -> Node:
        if not isinstance(node, Pin):
            return node
        first = pins.setdefault(node.key, node)
        if _pinned(first) == _pinned(node):
            return first
        role = f"{node.role or node.node.slug}__{mark_of(_model(node))}"
        own = dataclasses.replace(node, role=role)
        return pins.setdefault(own.key, own)

    return rewrite(train, kept)


def _model(pin: Pin) -> Any:
    """Return what has to be equal in all models of one pin."""
    node = pin.node
    return (node.log, *node.parts) if isinstance(node, Train) else node


def _pinned(pin: Pin) -> Any:
    return canonical(_model(pin), inputs=True)


def mark_of(value: Any) -> str:
    """Return ``variant_3fa21c`` for what ``value`` is made from."""
    return f"variant_{sha(_made_from(value, {}), 6)}"


def _made_from(value: Any, memo: dict[str, str]) -> Any:
    """Return settings that are not the default's, all the way down; no model, no revision."""
    match value:
        case Pin():
            return ["pin", value.role or _made_from(value.node, memo)]
        case Node():
            if value.digest not in memo:
                memo[value.digest] = sha([value.verb, _chosen(value, memo)])
            return memo[value.digest]
        case Component():
            return [type(value).__qualname__, _chosen(value, memo)]
        case tuple() | list():
            return [_made_from(v, memo) for v in value]
    return canonical(value, inputs=True)


def _chosen(value: Any, memo: dict[str, str]) -> dict[str, Any]:
    out = {}
    for f in dataclasses.fields(value):
        given = getattr(value, f.name)
        default = f.default
        if default is dataclasses.MISSING and f.default_factory is not dataclasses.MISSING:
            default = f.default_factory()
        if f.compare and given != default and not _of_model(value, f.name, given):
            out[f.name] = _made_from(given, memo)
    return out


def _of_model(owner: Any, name: str, value: Any) -> bool:
    """Say whether a field holds the identity of a model, which ``bind`` filled in."""
    return isinstance(owner, Node) and name in ("engine", "model") and isinstance(value, str)


def differences(first: Any, other: Any) -> list[str]:
    """Return in what ``other`` differs from ``first``, inputs included; four, then "..."."""
    found = list(dict.fromkeys(_unlike(first, other, "", set())))
    return found[:_SHOWN] + ["..."] * (len(found) > _SHOWN)


def _unlike(a: Any, b: Any, where: str, seen: set[tuple[Any, Any]]) -> Iterator[str]:
    if type(a) is not type(b) or not isinstance(a, (Node, Component, tuple)):
        if a != b:
            yield f"{where} {_told(b)}, not {_told(a)}"
    elif isinstance(a, tuple):
        if len(a) != len(b):
            yield f"{where} {_told(b)}, not {_told(a)}"
        for x, y in zip(a, b, strict=len(a) == len(b)):
            yield from _unlike(x, y, where, seen)
    elif a != b and (a, b) not in seen:
        seen.add((a, b))
        name = a.verb if isinstance(a, Node) else snake(type(a).__name__)
        for f in dataclasses.fields(a):
            if f.compare and not (isinstance(a, Pin) and f.name == "role"):  # told by its model
                x, y = getattr(a, f.name), getattr(b, f.name)
                yield from _unlike(x, y, f"{name}.{f.name}", seen)


def _told(value: Any) -> str:
    if isinstance(value, Node):
        return value.name
    if isinstance(value, Component):
        return snake(type(value).__name__)
    if isinstance(value, tuple):
        return ", ".join(map(_told, value)) or "none"
    return str(value) if value != "" else "none"
