"""What a search may change: settings of a method by name, and the training that a choice makes."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config import Method, Settings
from ...models.spaces import Choice, Dimension, Span, dimension, flat, searched
from ...plan import PlanError, Table, Train, rewrite, snake
from ...recipe import Recipe, discover
from ..build import Plan, base_of, bind, build_plan, instantiate
from ..experiment import check_ranges

BACKBONE, PART, RECIPE = "backbone_settings", "part_settings", "settings"  # fields of Method
_NOT_SEARCHED = ("backbone", "protocol")
_DIGITS = 3  # of a number that is drawn: what is printed is what was trained


class SpaceError(ValueError):
    """A range cannot be used; the message names the setting and the mend."""


@dataclass(frozen=True)
class Setting:
    """One setting that can be searched: where a toml has it, and its value now."""

    place: str
    path: tuple[str, ...]
    value: Any


@dataclass(frozen=True)
class Arm:
    """One method in a search: ``name`` is ``method``, ``enhanced`` or ``base``."""

    name: str
    method: Method
    node: Train
    known: Mapping[str, Setting]
    space: Mapping[str, Dimension]
    recipes: Mapping[str, Recipe]
    settings: Settings

    @property
    def task(self) -> str:
        return _task(self.node)

    @property
    def fixed(self) -> dict[str, Any]:
        """Settings with one value: every trial has it, the first one too."""
        one = {n: d for n, d in self.space.items() if isinstance(d, Choice) and len(d.values) == 1}
        return {n: d.values[0] for n, d in one.items()}

    @property
    def drawn(self) -> dict[str, Dimension]:
        return {n: d for n, d in self.space.items() if n not in self.fixed}

    @property
    def default(self) -> dict[str, Any]:
        """Return what the first trial has: the settings as they are, but for the fixed ones."""
        return {n: self.fixed.get(n, self.known[n].value) for n in self.space}

    def changed(self, chosen: Mapping[str, Any]) -> Method:
        """Return the method with ``chosen`` settings, as llmers.toml would say it."""
        out: dict[str, Any] = {
            place: _copied(getattr(self.method, place)) for place in (BACKBONE, PART, RECIPE)
        }
        for name, value in chosen.items():
            setting = self.known[name]
            if value == setting.value:
                continue
            inner = out[setting.place]
            for step in setting.path[:-1]:
                inner = inner.setdefault(step, {})
            inner[setting.path[-1]] = value
        return dataclasses.replace(self.method, **out)

    def train(self, chosen: Mapping[str, Any]) -> Train:
        """Return the training of ``chosen``; SpaceError where it would need other inputs."""
        try:
            made = _bound(self.changed(chosen), self.recipes, self.settings)
            check_ranges(made)
        except ValueError as error:
            raise SpaceError(str(error)) from error
        before = _bound(self.method, self.recipes, self.settings)
        # By digest: a pin stands while the backbone that it was made of is tuned.
        known = [n.digest for n in before.inputs]
        if [n.digest for n in made.inputs] != known:
            other = next(n for n in made.inputs if n.digest not in known)
            told = ", ".join(f"{n} = {v}" for n, v in chosen.items() if v != self.known[n].value)
            raise SpaceError(
                f"{self.node.slug} with {told} reads {other.name}, which the method does not: a "
                "search trains alone. Leave the setting out, or load the method with it in "
                "llmers.toml and search beside it"
            )
        # The plan gives inputs the names of the assets that are stored.
        names = dict(zip(made.inputs, self.node.inputs, strict=True))
        return rewrite(made, lambda n: n, names)


def rounded(value: Any, of: Dimension) -> Any:
    """Return a drawn number with few digits, inside of its range."""
    if isinstance(of, Choice) or of.whole:
        return value
    return min(max(float(f"{value:.{_DIGITS}g}"), of.low), of.high)


def arms_of(
    settings: Settings, recipe: str, backbone: str = "", *, with_base: bool = False,
    asked: Mapping[str, Any] | None = None, instead: Mapping[str, Any] | None = None,
) -> list[Arm]:  # fmt: skip
    """Return the method, and with ``with_base`` its backbone alone, each with its search space.

    The method is that of llmers.toml where it has one, else the recipe as it is. ``asked`` changes
    single ranges, ``instead`` replaces all. Raises PlanError for an unknown recipe or backbone,
    SpaceError for a range that cannot be used.
    """
    recipes = discover()
    method = _chosen(settings, recipe, backbone, recipes)
    # In its place, or last: the order decides which of two variants has the plain names.
    if method not in settings.methods:
        settings = dataclasses.replace(settings, methods=(*settings.methods, method))
    node = _planned(method, build_plan(settings, recipes), recipes, settings)
    enhanced = bool(node.parts)
    if with_base and not enhanced:
        raise PlanError(f"{recipe} is a backbone alone: there is no base beside it")
    named = "enhanced" if enhanced else "method"
    out = [_arm(named, method, node, recipes, settings, asked or {}, instead)]
    if with_base:
        base = _base_method(method, node, recipes)
        alone = base_of(node)
        assert alone is not None
        known = _known(base, alone, recipes)
        of_base = {n: d for n, d in out[0].space.items() if n in known and _is_backbone(out[0], n)}
        out.append(Arm("base", base, alone, known, of_base, recipes, settings))
    return out


def read_space(path: Path) -> dict[str, Any]:
    """Return the ranges of a toml: ``"fit.lr" = "1e-4..1e-2:log"``, or tables of them."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SpaceError(f"{path}: {error}") from error
    return _flattened(document)


def _flattened(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, Mapping) and not {"low", "high"} & set(value):
            out |= _flattened(value, f"{prefix}{name}.")
        else:
            out[prefix + name] = value
    return out


def read_set(words: tuple[str, ...]) -> dict[str, Any]:
    """Return the ranges of ``--set NAME=RANGE``."""
    out: dict[str, Any] = {}
    for word in words:
        name, equals, told = word.partition("=")
        if not equals or not told.strip():
            raise SpaceError(f"--set {word!r}: write NAME=RANGE, such as fit.lr=1e-4..1e-2:log")
        out[name.strip()] = told.strip()
    return out


def _chosen(
    settings: Settings, recipe: str, backbone: str, recipes: Mapping[str, Recipe]
) -> Method:
    if recipe not in recipes:
        near = difflib.get_close_matches(recipe, recipes, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(recipes)}"
        raise PlanError(f"no recipe {recipe!r}; {hint}")
    own = recipes[recipe].settings.get("backbone")
    usual = snake(type(own).__name__) if own is not None else ""
    for method in settings.methods:
        if method.recipe == recipe and (not backbone or (method.backbone or usual) == backbone):
            return method
    return Method(recipe, "" if backbone == usual else backbone)


def _base_method(method: Method, node: Train, recipes: Mapping[str, Recipe]) -> Method:
    for slug, recipe in recipes.items():
        if recipe.is_baseline and type(recipe.settings.get("backbone")) is type(node.backbone):
            task = _task(node)
            usual = recipe.settings.get("protocol", task) == task
            protocol = {} if usual else {"protocol": task}
            return Method(slug, settings=protocol, backbone_settings=method.backbone_settings)
    name = snake(type(node.backbone).__name__)
    raise PlanError(f"no recipe is {name} alone: leave --with-base out")


def _bound(method: Method, recipes: Mapping[str, Recipe], settings: Settings) -> Train:
    bound = bind(instantiate(method, dict(recipes))[1], settings)
    assert isinstance(bound, Train)
    return bound


def _planned(
    method: Method, plan: Plan, recipes: Mapping[str, Recipe], settings: Settings
) -> Train:
    """Return the training of ``method`` in ``plan``, whose inputs have the names of assets."""
    alone = _bound(method, recipes, settings)
    found = [m.train for m in plan.methods if m.train == alone]
    # With the pins of a method before it, it is not equal to itself alone.
    found += [m.train for m in plan.methods if m.train.label == alone.label]
    if not found:
        raise PlanError(f"{alone.slug} is the same as another method of llmers.toml; load one")
    return found[0]


def _known(method: Method, node: Train, recipes: Mapping[str, Recipe]) -> dict[str, Setting]:
    """Return every setting of a method that can be searched, by name."""
    out: dict[str, Setting] = {}
    for name, default in recipes[method.recipe].settings.items():
        value = method.settings.get(name, default)
        if name not in _NOT_SEARCHED and isinstance(value, (bool, int, float, str)):
            out[name] = Setting(RECIPE, (name,), value)
    for part in node.parts:
        own = snake(type(part).__name__)
        for name, value in flat(part).items():
            out[f"{own}.{name}"] = Setting(PART, (own, *name.split(".")), value)
    if "backbone" in recipes[method.recipe].settings:
        for name, value in flat(node.backbone).items():
            out[name] = Setting(BACKBONE, tuple(name.split(".")), value)
    return out


def _is_backbone(arm: Arm, name: str) -> bool:
    return arm.known[name].place == BACKBONE


def _arm(
    name: str, method: Method, node: Train, recipes: Mapping[str, Recipe], settings: Settings,
    asked: Mapping[str, Any], instead: Mapping[str, Any] | None,
) -> Arm:  # fmt: skip
    known = _known(method, node, recipes)
    space: dict[str, Dimension] = {}
    if instead is None:
        of_parts = {f"{snake(type(p).__name__)}.{n}": d
                    for p in node.parts for n, d in searched(p).items()}  # fmt: skip
        space = {n: d for n, d in {**searched(node.backbone), **of_parts}.items() if n in known}
    for setting, told in {**(instead or {}), **asked}.items():
        space[setting] = _read(setting, told, known, node)
    arm = Arm(name, method, node, known, space, recipes, settings)
    if not arm.drawn:
        raise SpaceError(
            f"{node.slug} has nothing to search; name a range with --set, such as "
            f"--set {next(iter(known), 'fit.lr')}=LOW..HIGH. It has: {', '.join(known) or 'none'}"
        )
    for setting, found in arm.drawn.items():
        for value in _ends(found):
            arm.train({**arm.default, setting: value})  # refuses what no trial could have
    return arm


def _read(name: str, told: Any, known: Mapping[str, Setting], node: Train) -> Dimension:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(known)}"
        raise SpaceError(f"{node.slug} has no setting {name!r} that can be searched; {hint}")
    try:
        return dimension(told, known[name].value)
    except ValueError as error:
        raise SpaceError(f"{name}: {error}") from error


def _ends(found: Dimension) -> tuple[Any, ...]:
    return (found.low, found.high) if isinstance(found, Span) else found.values


def _copied(table: Mapping[str, Any]) -> dict[str, Any]:
    return {n: _copied(v) if isinstance(v, Mapping) else v for n, v in table.items()}


def _task(node: Train) -> str:
    assert isinstance(node.log, Table)
    return node.log.task
