"""Recipes and the user's choice -> the union of nodes, each once, with owners (no Dagster)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..config import Method, Settings
from ..data.view_names import OPAQUE, check_view, sees
from ..encode.encoder import check_encoder
from ..models.seams import Backbone, check_seams, check_settings
from ..plan import (
    Champion,
    Embed,
    Evaluate,
    Generate,
    Node,
    Pin,
    PlanError,
    Register,
    Table,
    Teach,
    Train,
    check_keys,
    component_slug,
    rewrite,
    snake,
    walk,
)
from ..recipe import REQUIRED, Recipe, discover
from .backbones import backbones
from .changed import changed, changed_parts, told
from .labels import base_label, clean, with_readable_name
from .references import FIXED_REFERENCE, REFERENCES, UNTRAINED, task_of, wanted
from .teachers import controls_of, named_as_methods, named_teachers
from .tuned import bound
from .uncollected import uncollected
from .variants import told_apart, with_own_pins


@dataclass(frozen=True)
class Loaded:
    """One method of the plan: its recipe, its nodes from training to registration."""

    recipe: Recipe
    slug: str
    task: str
    train: Train
    base: Train | None
    evaluate: Evaluate
    register: Register

    @property
    def roots(self) -> tuple[Node, ...]:
        return (self.register,)

    def named(self, names: Mapping[Node, Any]) -> Loaded:
        """Return the same with the keys of ``told_apart``."""
        if not names:
            return self
        own = {f: names.get(getattr(self, f)) for f in ("train", "base", "evaluate", "register")}
        slug = own["train"].slug if own["train"].mark else self.slug
        return dataclasses.replace(self, slug=slug, **own)


@dataclass(frozen=True)
class Plan:
    """All nodes in dependency order, the methods they belong to, and the champions per task."""

    nodes: tuple[Node, ...]
    methods: tuple[Loaded, ...]
    champions: tuple[Champion, ...]
    owners: dict[Node, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def of_training(self) -> dict[Node, Loaded]:
        """The first method of each training."""
        return {m.train: m for m in reversed(self.methods)}

    @cached_property
    def families(self) -> dict[str, str]:
        """The family of each method, by its slug."""
        return {m.slug: m.recipe.family for m in self.methods}

    def node(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise PlanError(f"no asset {name!r}; `llmers plan all` lists what there is")

    def select(self, what: Iterable[str]) -> list[Node]:
        """Return what ``what`` names, and its inputs.

        Words: all, recipes, methods, families, tasks, groups, asset keys.
        """
        roots: list[Node] = []
        for word in what:
            roots.extend(self._roots(word))
        nodes = walk([r for r in roots if not isinstance(r, Champion)])
        # The gate judges whatever is registered by then: it never pulls in other methods.
        registered = {n for n in nodes if isinstance(n, Register)}
        gates = [c for c in self.champions if c in roots or registered & set(c.candidates)]
        return [*nodes, *gates]

    def _roots(self, word: str) -> list[Node]:
        if word == "all":
            return list(self.nodes)
        if "/" in word:
            return [self.node(word)]
        name = word.lower()
        chosen = [
            m for m in self.methods
            if name in (m.slug, m.recipe.slug, m.recipe.family, m.task, m.recipe.name.lower())
        ]  # fmt: skip
        if chosen:
            return [r for m in chosen for r in (*_with_base(self, m), *m.roots)]
        groups = [n for n in self.nodes if n.prefix == word]
        if groups:
            return groups
        known = sorted({m.slug for m in self.methods} | {n.prefix for n in self.nodes})
        raise PlanError(
            f"nothing is called {word!r}; give a method, a family, a group, an asset key or 'all'. "
            f"Known: {', '.join(known)}"
        )


def _with_base(plan: Plan, method: Loaded) -> list[Node]:
    """The base and the fixed reference of a method's task: a lift needs both beside it."""
    wanted = {FIXED_REFERENCE.get(task_of(method.task), "")}
    if method.base is not None:
        wanted.add(method.base.slug)
    return [r for m in plan.methods if m.train.slug in wanted for r in m.roots]


def fitting_backbones(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Return the slugs of the backbones on which ``recipe`` builds (its seams are offered).

    With each come the settings without which the recipe would be refused there, mostly none.
    """
    own = recipe.settings.get("backbone")
    if own is None:
        return {}
    out: dict[str, dict[str, Any]] = {}
    for slug, kind in backbones().items():
        if recipe.task not in kind.tasks or (recipe.is_baseline and kind is not type(own)):
            continue
        ways = [{}, *([{"supervise": "last"}] if hasattr(kind, "supervise") else [])]
        fit = next((how for how in ways if _fits(recipe, lambda k=kind, h=how: k(**h))), None)
        if fit is None and kind is type(own) and _fits(recipe, lambda: own):
            fit = {}  # one that reads tables which its recipe names
        if fit is not None:
            out[slug] = fit
    return out


def _fits(recipe: Recipe, backbone: Callable[[], Backbone]) -> bool:
    try:
        node = recipe(backbone=backbone())
        check_seams(node.backbone, node.parts, recipe.slug)
    except (PlanError, AttributeError, TypeError):
        return False
    return True


def _backbone(method: Method, recipe: Recipe) -> Backbone:
    """Return the backbone that a method names, or the recipe's own with other settings."""
    where = f"llmers.toml [{method.recipe}]"
    if "backbone" not in recipe.settings:
        raise PlanError(f"{where}: the recipe has no backbone to choose or to set")
    default = recipe.settings["backbone"]
    name = method.backbone or snake(type(default).__name__)
    kind = backbones().get(name)
    if kind is None:
        raise PlanError(f"{where}: no backbone {name!r}; known: {', '.join(backbones())}")
    if recipe.task not in kind.tasks:
        fitting = ", ".join(s for s, k in backbones().items() if recipe.task in k.tasks)
        raise PlanError(
            f"{where}: {name} is no backbone of the task {recipe.task!r}; these are: {fitting}"
        )
    if type(default) is not kind:
        if not kind.seams and default.seams:
            raise PlanError(f"{where}: {name} has no seam where a part could be attached")
        try:
            default = kind()
        except TypeError as error:
            raise PlanError(f"{where}: {name} is for the recipe that names its tables") from error
    return changed(default, method.backbone_settings, where)


def instantiate(method: Method, recipes: dict[str, Recipe]) -> tuple[Recipe, Train]:
    """Return the recipe of a method and its training node, with a readable label."""
    if method.recipe not in recipes:
        raise PlanError(f"llmers.toml: no recipe {method.recipe!r}; known: {', '.join(recipes)}")
    recipe = recipes[method.recipe]
    settings = dict(method.settings)
    if method.backbone or method.backbone_settings:
        settings["backbone"] = _backbone(method, recipe)
    node = rewrite(recipe(**settings), with_readable_name)
    node = changed_parts(node, method.part_settings, f"llmers.toml [{method.recipe}]")
    check_seams(node.backbone, node.parts, recipe.slug)
    check_settings(node.backbone, node.parts, recipe.slug)
    extra = [
        f"{k}{v}" if not isinstance(v, str) else v
        for k, v in settings.items()
        if k != "backbone" and v != recipe.settings[k]
    ] + told(method.part_settings)
    if recipe.is_baseline:
        label = base_label(node)
    else:
        label = "__".join([recipe.slug, component_slug(node.backbone), *extra])
    node = named_teachers(node, recipe.slug, base_label)
    return recipe, dataclasses.replace(node, label=clean(label), recipe=recipe.slug)


def base_of(train: Train) -> Train | None:
    """Return the same backbone without enhancements, or None where there is nothing to remove."""
    if not train.parts:
        return None
    named = with_readable_name(Train(train.backbone, train.log))
    return named if isinstance(named, Train) else None


def _reads_templates(node: Node) -> bool:
    return any(isinstance(n, Generate) and n.llm == "template" for n in walk([node]))


def _template_of(train: Train) -> Train | None:
    """Return the same method with every answer from the template engine: the control of texts."""
    if not any(isinstance(n, Generate) for n in walk([train])):
        return None

    def swap(node: Node) -> Node:
        if isinstance(node, Generate) and not node.llm:
            return dataclasses.replace(node, llm="template", adapter=None)
        # A model that reads answers, or its pin, is another one under the template.
        name = {"train": "label", "distill": "label", "pin": "role"}.get(node.verb, "")
        if name and getattr(node, name) and _reads_templates(node):
            return dataclasses.replace(node, **{name: f"{getattr(node, name)}__template"})
        return node

    return dataclasses.replace(rewrite(train, swap), label=f"{train.label}__template")


def _baselines(
    slugs: Iterable[str],
    train: Train,
    base: Train | None,
    recipes: dict[str, Recipe],
    settings: Settings,
) -> tuple[Train, ...]:
    """Return baselines on the same log as ``train``, as configured, without the base itself."""
    out = []
    for slug in slugs:
        if slug not in recipes:
            continue
        chosen = [m for m in settings.methods if m.recipe == slug]
        chosen.append(Method(slug, settings={"protocol": train.log.task}))
        nodes = (instantiate(m, recipes)[1] for m in chosen)
        node = bind(next(n for n in nodes if n.log.task == train.log.task), settings)
        if node not in (base, train):
            out.append(node)
    return tuple(out)


def _compared_with(
    train: Train, base: Train | None, recipes: dict[str, Recipe], settings: Settings
) -> dict[str, Any]:
    """Return the references of the base and the untrained use of the same texts."""
    if not train.parts:
        return {}
    task = task_of(train.log.task)
    loaded = {m.recipe for m in settings.methods} or set(recipes)
    known = REFERENCES.get(task, ())
    slugs = [slug for i, slug in enumerate(known) if i == 0 or slug in loaded]
    untrained = _baselines([UNTRAINED.get(task, "")], train, base, recipes, settings)
    return {
        "references": _baselines(slugs, train, base, recipes, settings),
        "untrained": untrained[0] if untrained else None,
    }


def viewed(node: Table, view: str) -> Table:
    """Return ``node`` as ``view`` shows it; PlanError where titles would come from elsewhere."""
    try:
        check_view(view)
    except ValueError as error:
        raise PlanError(str(error)) from error
    if view == OPAQUE and node.table not in ("items", "users", "interactions", "splits"):
        raise PlanError(f"{node.name} may tell of items by name, which the view {view!r} hides")
    return dataclasses.replace(node, view=view) if sees(view, node.table) else node


def bind(node: Node, settings: Settings) -> Node:
    """Return ``node`` with the configured engine and encoder written into its identity."""
    sampling = f"{settings.max_tokens}/{settings.temperature}/{settings.llm_seed}"

    def fill(n: Node) -> Node:
        n = bound(n, settings)
        if isinstance(n, Table):
            return viewed(n, settings.view)
        if isinstance(n, Generate) and not n.engine:
            engine = "template" if n.llm == "template" else f"{settings.engine_identity}#{sampling}"
            return dataclasses.replace(n, engine=engine)
        if isinstance(n, Teach) and n.how.asks_model and not n.engine:
            return dataclasses.replace(n, engine=settings.engine_identity)
        if isinstance(n, Embed) and not n.model:
            model = n.encoder or settings.resolved_encoder
            try:
                check_encoder(model)
            except ValueError as error:
                raise PlanError(f"{n.name}: {error}") from error
            return dataclasses.replace(n, model=model)
        return n

    return rewrite(node, fill)


def _with_reference(
    chosen: list[tuple[Recipe, Train]], recipes: dict[str, Recipe]
) -> list[tuple[Recipe, Train]]:
    """Return the choice with the gate's fixed reference of each task, where it is missing."""
    out = list(chosen)
    for task in dict.fromkeys(train.log.task for _, train in chosen):
        slug = FIXED_REFERENCE.get(task_of(task), "")
        there = any(r.slug == slug and t.log.task == task for r, t in out)
        if slug in recipes and not there:
            out.append(instantiate(Method(slug, settings={"protocol": task}), recipes))
    return out


@uncollected()
def build_plan(settings: Settings, recipes: dict[str, Recipe] | None = None) -> Plan:
    """Return the plan of ``settings``; faults raise ``PlanError`` and name the recipes."""
    recipes = discover(wanted(settings)) if recipes is None else recipes
    methods = settings.methods or tuple(Method(slug) for slug in recipes)
    loaded: dict[Register, Loaded] = {}
    owners: dict[Node, list[str]] = {}
    chosen = _with_reference([instantiate(m, recipes) for m in methods], recipes)
    own: dict[Node, Node] = {}
    pins: dict[tuple[str, str], Pin] = {}
    entries: list[Loaded] = []
    for _, train in chosen:
        own.setdefault(bound := bind(train, settings), bound)
    for recipe, raw in chosen:
        if not set(recipe.requires) <= set(REQUIRED):
            raise PlanError(f"recipe {recipe.slug!r} requires unknown columns {recipe.requires}")
        raw = with_own_pins(raw, pins)
        train = named_as_methods(bind(raw, settings), own)
        base = base_of(train)
        template = None
        if "template" in settings.controls and settings.engine != "template":
            template = _template_of(raw)
            template = bind(template, settings) if template else None
        evaluate = Evaluate(
            train,
            base,
            template,
            seeds=settings.seeds,
            controls=controls_of(train, settings.controls),
            **_compared_with(train, base, recipes, settings),
        )
        register = Register(evaluate, Table("items"))
        slug, task = train.slug, train.log.task
        entries.append(Loaded(recipe, slug, task, train, base, evaluate, register))
    names = told_apart([e.register for e in entries])
    for entry in (e.named(names) for e in entries):
        loaded.setdefault(entry.register, entry)
        for node in walk([entry.register]):
            owners.setdefault(node, [])
            if entry.slug not in owners[node]:
                owners[node].append(entry.slug)
    by_task: dict[str, list[Register]] = {}
    for entry in loaded.values():
        by_task.setdefault(entry.task, []).append(entry.register)
    champions = tuple(Champion(task, tuple(found)) for task, found in sorted(by_task.items()))
    nodes = walk([r for e in loaded.values() for r in e.roots] + list(champions))
    check_keys(nodes, {n: " and ".join(names) for n, names in owners.items()})
    told = {n: tuple(names) for n, names in owners.items()}
    return Plan(tuple(nodes), tuple(loaded.values()), champions, told)
