"""The plan: methods are values. The verbs, each a node whose components say how (pure Python).

A recipe returns a small tree of nodes. Equal nodes are one asset.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .naming import bounded, safe, snake
from .node import Component, Node, canonical, component_slug, later, sha
from .walk import PlanError, check_keys, rewrite, walk

__all__ = [
    "Champion", "Component", "Derive", "Distill", "Embed", "Evaluate", "Generate", "Node", "Pin",
    "PlanError", "Register", "Table", "Teach", "Train", "Tune", "canonical", "check_keys",
    "component_slug", "later", "rewrite", "safe", "sha", "snake", "variant", "walk",
]  # fmt: skip


@dataclass(frozen=True)
class Table(Node):
    """A validated table of the data set: items, users, interactions, or the splits of a task."""

    verb: ClassVar[str] = "table"
    table: str = "items"
    task: str = ""
    of: tuple[Node, ...] = ()
    view: str = field(default="", metadata={"later": True})  # another sight of it (data/views.py)

    @property
    def prefix(self) -> str:
        return "catalog"

    @property
    def plain(self) -> str:
        return "__".join(part for part in (self.table, self.task, self.view) if part)


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
    # A ``Tune``: its model answers instead of the configured one.
    adapter: Node | None = field(default=None, metadata={"later": True})

    @property
    def prefix(self) -> str:
        return self.task.produces

    @property
    def plain(self) -> str:
        slug = component_slug(self.task) + variant(self.context, getattr(self.task, "usual", ""))
        slug += f"__{self.adapter.slug}" if self.adapter else ""
        return bounded(f"{slug}__{safe(self.llm)}" if self.llm else slug)


@dataclass(frozen=True)
class Embed(Node):
    """Texts to vectors, one row per entity of ``over``."""

    verb: ClassVar[str] = "embed"
    text: Any = None
    over: Node | None = None
    context: tuple[Node, ...] = ()
    encoder: str = ""  # "" = the configured encoder
    model: str = ""  # identity of the encoder, filled in by ``bind``
    # A ``Tune`` of that encoder.
    adapter: Node | None = field(default=None, metadata={"later": True})

    @property
    def prefix(self) -> str:
        return "llm_embeddings"

    @property
    def plain(self) -> str:
        made = isinstance(self.over, (Generate, Derive))
        slug = self.over.slug if made else component_slug(self.text) + variant(self.context)
        slug += f"__{self.adapter.slug}" if self.adapter else ""
        return bounded(f"{slug}__{safe(self.encoder)}" if self.encoder else slug)


@dataclass(frozen=True, init=False)
class Derive(Node):
    """A pure function of assets: ``Derive(PCA(dim=64), item_vectors)``."""

    verb: ClassVar[str] = "derive"
    how: Any = None
    sources: tuple[Node, ...] = ()

    def __init__(self, how: Any, *sources: Node, mark: str = "") -> None:
        object.__setattr__(self, "how", how)
        object.__setattr__(self, "sources", tuple(sources))
        object.__setattr__(self, "mark", mark)

    def remade(self, fields: Mapping[str, Any]) -> Derive:
        return Derive(fields["how"], *fields["sources"], mark=fields["mark"])

    @property
    def prefix(self) -> str:
        return "features"

    @property
    def plain(self) -> str:
        return bounded("__".join([component_slug(self.how), *(s.slug for s in self.sources[:1])]))


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
    def plain(self) -> str:
        return self.label or f"{component_slug(self.backbone)}__{self.log.slug.split('__')[-1]}"


@dataclass(frozen=True)
class Teach(Node):
    """What a teacher knows of the training rows of ``log``, exported once and joined by id.

    ``how`` says who teaches and what is exported; ``sources`` are what the teacher needs besides
    the log: a trained recommender, the catalog, a pinned baseline that proposes candidates.
    """

    verb: ClassVar[str] = "teach"
    how: Any = None
    log: Node | None = None
    sources: tuple[Node, ...] = ()
    engine: str = ""  # identity of the engine where a language model teaches, filled in by ``bind``
    # A ``Tune``: its model teaches instead of the configured one.
    adapter: Node | None = field(default=None, metadata={"later": True})

    @property
    def prefix(self) -> str:
        return "teacher_states"

    @property
    def plain(self) -> str:
        named = [s.slug for s in self.sources if not isinstance(s, Table)]
        tuned = [self.adapter.slug] if self.adapter else []
        slug = "__".join([component_slug(self.how), *named[:1], *tuned]) + variant((self.log,))
        return bounded(slug)


@dataclass(frozen=True)
class Tune(Node):
    """A language model or an encoder, tuned on ``examples``; publishes the adapter over it.

    ``how`` is the objective with its settings; ``examples`` a table that is made of other assets,
    of users only by what the training split holds.
    """

    verb: ClassVar[str] = "tune"
    how: Any = None
    examples: Node | None = None
    base: str = ""  # "" = the configured model; of an objective over texts: a named encoder
    model: str = ""  # identity of the base model, filled in by ``bind``
    # What an objective reads beside its examples, such as item vectors.
    context: tuple[Node, ...] = later(())

    @property
    def prefix(self) -> str:
        return "tuned_models"

    @property
    def plain(self) -> str:
        slug = f"{component_slug(self.how)}__{self.examples.slug}"
        return bounded(f"{slug}__{safe(self.base)}" if self.base else slug)


@dataclass(frozen=True)
class Distill(Train):
    """A ``Train`` whose targets come, in part, from a ``Teach``; the same loop, cells and steps."""

    verb: ClassVar[str] = "distill"

    @property
    def prefix(self) -> str:
        return "student_weights"


@dataclass(frozen=True)
class Evaluate(Node):
    """Metrics of one trained recommender against its base and its controls."""

    verb: ClassVar[str] = "evaluate"
    revision: ClassVar[int] = 2  # lists, curves, cold candidates and power; slices of time splits
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
    def plain(self) -> str:
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
    def plain(self) -> str:
        return self.evaluation.slug


@dataclass(frozen=True)
class Champion(Node):
    """The gate of one task: follows all its registrations and alone moves the alias."""

    verb: ClassVar[str] = "champion"
    revision: ClassVar[int] = 2  # an interval against the reference as well; refreshes
    task: str = ""
    candidates: tuple[Node, ...] = ()

    @property
    def prefix(self) -> str:
        return "registry"

    @property
    def plain(self) -> str:
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
    def plain(self) -> str:
        return f"pin__{self.role or self.node.slug}"

    @property
    def digest(self) -> str:
        return sha(["pin", self.role or self.node.name])
