"""What a plan is made of: components and nodes, and what decides that two of them are equal.

A node's ``code_version`` hashes its own settings (component revisions included, inputs excluded);
its ``digest`` adds the digests of its inputs and decides merging and identity.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, ClassVar

from .naming import marked, safe, snake


@dataclass(frozen=True)
class Component:
    """Settings of one exchangeable part: a prompt task, a backbone, a loss, a reducer, ...

    Subclasses are frozen dataclasses that hold settings alone; weights live in a sibling
    ``<name>_net.py`` which ``build`` imports. ``revision`` is raised when behaviour changes.
    """

    revision: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset()  # seams that a backbone must offer


def later(default: Any) -> Any:
    """Return a field for a setting that a component got after results of it were stored.

    At its default it is no part of the identity: behaviour is as before, so stored results stay.
    """
    return dataclasses.field(default=default, metadata={"later": True})


def component_slug(component: Component, like: Component | None = None) -> str:
    """Return the component's name plus its settings that differ from the default (or ``like``)."""
    parts = [snake(type(component).__name__)]
    for f in dataclasses.fields(component):
        value = getattr(component, f.name)
        if not f.compare or isinstance(value, Node) or holds_node(value):
            continue
        default = f.default
        if default is dataclasses.MISSING and f.default_factory is not dataclasses.MISSING:
            default = f.default_factory()
        if type(like) is type(component):
            default = getattr(like, f.name)
        if value == default:
            continue
        if isinstance(value, Component):
            parts.append(component_slug(value, default))
        elif isinstance(value, bool):
            parts.append(f.name if value else f"no_{f.name}")
        elif isinstance(value, str):
            parts.append(safe(value))
        else:
            parts.append(safe(f"{f.name}{value}"))
    return "__".join(parts)


def holds_node(value: Any) -> bool:
    """Say whether a node hangs somewhere in ``value``."""
    return any(True for _ in _nodes_in(value))


def _nodes_in(value: Any) -> Iterator[Node]:
    """Yield the nodes that hang directly below ``value``, in field order."""
    if isinstance(value, Node):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _nodes_in(item)
    elif isinstance(value, Component):
        for name in names_of(type(value)):
            yield from _nodes_in(getattr(value, name))


@cache
def names_of(kind: type) -> tuple[str, ...]:
    """Return the names of a dataclass's fields, in order."""
    return tuple(f.name for f in dataclasses.fields(kind))


@cache
def _compared(kind: type) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(kind) if f.compare)


def canonical(value: Any, *, inputs: bool) -> Any:
    """Return ``value`` as plain JSON data; nodes become their digest, or a mark when excluded."""
    match value:
        case Node():
            return ["node", value.digest if inputs else "input"]
        case Component():
            kind = type(value)
            return [kind.__qualname__, kind.revision, _fields(value, inputs=inputs)]
        case tuple() | list():
            return [canonical(v, inputs=inputs) for v in value]
        case dict():
            return {str(k): canonical(v, inputs=inputs) for k, v in sorted(value.items())}
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"{value!r} cannot be part of a plan: use plain settings, components or nodes")


def _fields(value: Any, *, inputs: bool) -> dict[str, Any]:
    compared = [f.name for f in dataclasses.fields(value) if f.compare and not _unset(f, value)]
    return {name: canonical(getattr(value, name), inputs=inputs) for name in compared}


def _unset(setting: dataclasses.Field[Any], value: Any) -> bool:
    return "later" in setting.metadata and getattr(value, setting.name) == setting.default


def sha(value: Any, length: int = 16) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


@dataclass(frozen=True)
class Node:
    """One asset-to-be. Compared by value, so equal questions are asked once."""

    verb: ClassVar[str] = ""
    revision: ClassVar[int] = 1
    # Tells it from another node of its plan that goes by the same plain slug; no part of identity.
    mark: str = dataclasses.field(default="", compare=False, repr=False, kw_only=True)

    def __init_subclass__(cls, **how: Any) -> None:
        super().__init_subclass__(**how)
        cls.__hash__ = Node.__hash__  # else each dataclass gets one of its own

    def __hash__(self) -> int:
        """Return the hash of the compared fields; reckoned once, because inputs are part of it."""
        known = self.__dict__.get("_hash")
        if known is None:
            own = tuple(getattr(self, name) for name in _compared(type(self)))
            known = self.__dict__["_hash"] = hash(own)
        return known

    def __getstate__(self) -> dict[str, Any]:
        # Hashes of text differ between processes.
        return {k: v for k, v in self.__dict__.items() if k != "_hash"}

    @cached_property
    def inputs(self) -> tuple[Node, ...]:
        """Direct inputs, each once, in field order."""
        found = (n for name in names_of(type(self)) for n in _nodes_in(getattr(self, name)))
        return tuple(dict.fromkeys(found))

    @property
    def wiring(self) -> str:
        """Where each input goes, as positions in ``inputs``; "" where each goes once, in order."""
        found = [n for f in dataclasses.fields(self) for n in _nodes_in(getattr(self, f.name))]
        at = [self.inputs.index(n) for n in found]
        return "" if at == list(range(len(at))) else ",".join(map(str, at))

    def _own(self, *, inputs: bool) -> Any:
        return [self.verb, type(self).revision, _fields(self, inputs=inputs)]

    def remade(self, fields: Mapping[str, Any]) -> Node:
        """Return a node of this kind with other ``fields``."""
        return type(self)(**fields)

    @property
    def code_version(self) -> str:
        return sha(self._own(inputs=False), 12)

    @cached_property
    def digest(self) -> str:
        return sha(self._own(inputs=True))

    @property
    def prefix(self) -> str:
        raise NotImplementedError

    @property
    def plain(self) -> str:
        """The slug by the node's own settings, without ``mark``."""
        raise NotImplementedError

    @property
    def slug(self) -> str:
        return marked(self.plain, self.mark) if self.mark else self.plain

    @cached_property
    def key(self) -> tuple[str, str]:
        return (self.prefix, self.slug)

    @property
    def name(self) -> str:
        return "/".join(self.key)
