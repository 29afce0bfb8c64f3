"""The plan: methods are values. Nodes, their identity, and the walk over them (pure Python).

A recipe returns a small tree of nodes. Equal nodes are one asset. A node's ``code_version`` hashes
its own settings (component revisions included, inputs excluded); its ``digest`` adds the digests of
its inputs and decides merging and identity.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from .naming import safe, snake


@dataclass(frozen=True)
class Component:
    """Settings of one exchangeable part: a prompt task, a backbone, a loss, a reducer, ...

    Subclasses are frozen dataclasses that hold settings alone; weights live in a sibling
    ``<name>_net.py`` which ``build`` imports. ``revision`` is raised when behaviour changes.
    """

    revision: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset()  # seams that a backbone must offer


def component_slug(component: Component, like: Component | None = None) -> str:
    """Return the component's name plus its settings that differ from the default (or ``like``)."""
    parts = [snake(type(component).__name__)]
    for f in dataclasses.fields(component):
        value = getattr(component, f.name)
        if not f.compare or isinstance(value, Node) or _holds_node(value):
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


def _holds_node(value: Any) -> bool:
    return any(True for _ in _nodes_in(value))


def _nodes_in(value: Any) -> Iterator[Node]:
    """Yield the nodes that hang directly below ``value``, in field order."""
    if isinstance(value, Node):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _nodes_in(item)
    elif isinstance(value, Component):
        for f in dataclasses.fields(value):
            yield from _nodes_in(getattr(value, f.name))


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
    compared = [f.name for f in dataclasses.fields(value) if f.compare]
    return {name: canonical(getattr(value, name), inputs=inputs) for name in compared}


def sha(value: Any, length: int = 16) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


@dataclass(frozen=True)
class Node:
    """One asset-to-be. Compared by value, so equal questions are asked once."""

    verb: ClassVar[str] = ""
    revision: ClassVar[int] = 1

    @property
    def inputs(self) -> tuple[Node, ...]:
        """Direct inputs, each once, in field order."""
        found = (n for f in dataclasses.fields(self) for n in _nodes_in(getattr(self, f.name)))
        return tuple(dict.fromkeys(found))

    @property
    def wiring(self) -> str:
        """Where each input goes, as positions in ``inputs``; "" where each goes once, in order."""
        found = [n for f in dataclasses.fields(self) for n in _nodes_in(getattr(self, f.name))]
        at = [self.inputs.index(n) for n in found]
        return "" if at == list(range(len(at))) else ",".join(map(str, at))

    def _own(self, *, inputs: bool) -> Any:
        return [self.verb, type(self).revision, _fields(self, inputs=inputs)]

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
    def slug(self) -> str:
        raise NotImplementedError

    @property
    def key(self) -> tuple[str, str]:
        return (self.prefix, self.slug)

    @property
    def name(self) -> str:
        return "/".join(self.key)


@dataclass(frozen=True)
class Table(Node):
    """A validated table of the data set: items, users, interactions, or the splits of a task."""

    verb: ClassVar[str] = "table"
    table: str = "items"
    task: str = ""
    of: tuple[Node, ...] = ()

    @property
    def prefix(self) -> str:
        return "catalog"

    @property
    def slug(self) -> str:
        return f"{self.table}__{self.task}" if self.task else self.table


def variant(context: Iterable[Node], usual: str = "") -> str:
    """Return ``__ctr_time`` for splits that are not ``usual``; without it for named variants."""
    tasks = (n.task for n in context if isinstance(n, Table) and n.task)
    return "".join(f"__{t}" for t in tasks if (t != usual if usual else "_" in t))


@dataclass(frozen=True)
class Generate(Node):
    """LLM answers to one prompt task, one row per entity: parsed, validated, grounded."""

    verb: ClassVar[str] = "generate"
    task: Any = None
    over: Node | None = None
    context: tuple[Node, ...] = ()
    llm: str = ""  # "" = the configured engine; "template" = the control without a model
    engine: str = ""  # identity of the engine and its sampling, filled in by ``bind``

    @property
    def prefix(self) -> str:
        return self.task.produces

    @property
    def slug(self) -> str:
        slug = component_slug(self.task) + variant(self.context, getattr(self.task, "usual", ""))
        return f"{slug}__{safe(self.llm)}" if self.llm else slug


@dataclass(frozen=True)
class Embed(Node):
    """Texts to vectors, one row per entity of ``over``."""

    verb: ClassVar[str] = "embed"
    text: Any = None
    over: Node | None = None
    context: tuple[Node, ...] = ()
    encoder: str = ""  # "" = the configured encoder
    model: str = ""  # identity of the encoder, filled in by ``bind``

    @property
    def prefix(self) -> str:
        return "llm_embeddings"

    @property
    def slug(self) -> str:
        generated = isinstance(self.over, Generate)
        slug = self.over.slug if generated else component_slug(self.text) + variant(self.context)
        return f"{slug}__{safe(self.encoder)}" if self.encoder else slug


@dataclass(frozen=True, init=False)
class Derive(Node):
    """A pure function of assets: ``Derive(PCA(dim=64), item_vectors)``."""

    verb: ClassVar[str] = "derive"
    how: Any = None
    sources: tuple[Node, ...] = ()

    def __init__(self, how: Any, *sources: Node) -> None:
        object.__setattr__(self, "how", how)
        object.__setattr__(self, "sources", tuple(sources))

    @property
    def prefix(self) -> str:
        return "features"

    @property
    def slug(self) -> str:
        return "__".join([component_slug(self.how), *(s.slug for s in self.sources[:1])])


@dataclass(frozen=True)
class Train(Node):
    """Weights of a conventional recommender, with its enhancements attached at named seams."""

    verb: ClassVar[str] = "train"
    backbone: Any = None
    log: Node | None = None
    init: tuple[Any, ...] = ()
    fuse: tuple[Any, ...] = ()
    aux: tuple[Any, ...] = ()
    label: str = field(default="", compare=False)  # readable names; no part of the identity
    recipe: str = field(default="", compare=False)

    @property
    def parts(self) -> tuple[Any, ...]:
        return (*self.init, *self.fuse, *self.aux)

    @property
    def prefix(self) -> str:
        return "recommenders"

    @property
    def slug(self) -> str:
        return self.label or f"{component_slug(self.backbone)}__{self.log.slug.split('__')[-1]}"


@dataclass(frozen=True)
class Evaluate(Node):
    """Metrics of one trained recommender against its base and its controls."""

    verb: ClassVar[str] = "evaluate"
    model: Train | None = None
    base: Train | None = None
    template: Train | None = None  # the same method fed by the template engine
    references: tuple[Train, ...] = ()  # conventional baselines: the base may not be behind them
    untrained: Train | None = None  # the same texts without training: one more control
    seeds: int = 1
    controls: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        return "evaluations"

    @property
    def slug(self) -> str:
        return self.model.slug


@dataclass(frozen=True)
class Register(Node):
    """An MLflow model version of one evaluated recommender."""

    verb: ClassVar[str] = "register"
    evaluation: Evaluate | None = None
    items: Node | None = None

    @property
    def prefix(self) -> str:
        return "registry"

    @property
    def slug(self) -> str:
        return self.evaluation.slug


@dataclass(frozen=True)
class Champion(Node):
    """The gate of one task: follows all its registrations and alone moves the alias."""

    verb: ClassVar[str] = "champion"
    task: str = ""
    candidates: tuple[Node, ...] = ()

    @property
    def prefix(self) -> str:
        return "registry"

    @property
    def slug(self) -> str:
        return f"champion__{self.task}"


@dataclass(frozen=True)
class Pin(Node):
    """A reference to one stored version of a node, moved on purpose: its input stays put."""

    verb: ClassVar[str] = "pin"
    node: Node | None = None
    role: str = ""  # names the pin; else the node's name does, which changes with its settings

    @property
    def prefix(self) -> str:
        return "features"

    @property
    def slug(self) -> str:
        return f"pin__{self.role or self.node.slug}"

    @property
    def digest(self) -> str:
        return sha(["pin", self.role or self.node.name])


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
            return _rebuild(value, change, memo) if _holds_node(value) else value
        case tuple():
            return tuple(rewrite(v, change, memo) for v in value)
    return value


def _rebuild(value: Any, change: Callable[[Node], Node], memo: dict[Node, Node]) -> Any:
    fields = {
        f.name: rewrite(getattr(value, f.name), change, memo) for f in dataclasses.fields(value)
    }
    if isinstance(value, Derive):
        return Derive(fields["how"], *fields["sources"])
    return type(value)(**fields)


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
                f"{who[0]} and {who[1]} both make {node.name!r} with different settings; give one "
                "of them another name or equal settings"
            )
