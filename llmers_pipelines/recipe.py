"""The ``recipe`` decorator and discovery: packaged recipes and entry points ``llmers.recipes``."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from .plan import PlanError, Train

REQUIRED = ("rating", "label", "scenario")  # what a recipe may ask of a data set
FAMILIES = (
    "baselines", "knowledge", "interaction", "initialization", "distillation", "utilization",
    "guidance",
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """One published method (or baseline): a function from settings to a ``Train`` node."""

    name: str
    slug: str
    task: str
    family: str
    paper: str
    build: Callable[..., Train]
    requires: tuple[str, ...] = ()
    module: str = field(default="", compare=False)

    @property
    def doc(self) -> str:
        return inspect.getdoc(inspect.getmodule(self.build)) or inspect.getdoc(self.build) or ""

    @property
    def is_baseline(self) -> bool:
        return self.family == "baselines"

    @property
    def settings(self) -> dict[str, Any]:
        """Settings and their defaults, the backbone included."""
        return {p.name: p.default for p in inspect.signature(self.build).parameters.values()}

    def __call__(self, **settings: Any) -> Train:
        unknown = sorted(set(settings) - set(self.settings))
        if unknown:
            raise PlanError(
                f"recipe {self.slug!r} has no setting {unknown[0]!r}; it has: "
                f"{', '.join(self.settings) or 'none'}"
            )
        try:
            node = self.build(**settings)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, PlanError):
                raise
            given = ", ".join(f"{k}={v!r}" for k, v in settings.items())
            raise PlanError(
                f"recipe {self.slug!r} cannot be built with {given or 'its defaults'}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(node, Train):
            raise PlanError(f"recipe {self.slug!r} must return a Train node, got {type(node)}")
        return node


def recipe(
    *, name: str, task: str, family: str, paper: str = "", requires: tuple[str, ...] = ()
) -> Callable[[Callable[..., Train]], Recipe]:
    """Declare a method. Its function's name is the slug; ``requires``: see ``REQUIRED``."""
    if family not in FAMILIES:
        raise PlanError(f"recipe {name!r}: family {family!r} is none of {', '.join(FAMILIES)}")

    def declare(build: Callable[..., Train]) -> Recipe:
        return Recipe(name, build.__name__, task, family, paper, build, requires, build.__module__)

    return declare


def _load(entry: metadata.EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:  # whatever a plug-in raises must name the plug-in
        raise PlanError(
            f"the recipe plug-in {entry.name!r} ({entry.value}) cannot be loaded: {error}; mend or "
            "uninstall it"
        ) from error


def _packaged() -> dict[str, str]:
    """Return the modules of the packaged recipes by slug: a file is named after its recipe."""
    from . import recipes as package

    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    return {m.name.rsplit(".", 1)[1]: m.name for m in found if not m.ispkg}


def discover(slugs: Collection[str] | None = None) -> dict[str, Recipe]:
    """Return recipes by slug: packaged ones first, then entry points; duplicates raise.

    With ``slugs`` only those of the packaged recipes are imported, where each of them is known;
    otherwise all.
    """
    modules, entries = _packaged(), metadata.entry_points(group="llmers.recipes")
    found: dict[str, Recipe] = {}
    for entry in entries:
        _add(found, _load(entry), modules)
    if slugs is None or not set(slugs) <= {*modules, *found}:
        slugs = modules
    packaged: dict[str, Recipe] = {}
    for slug in modules.keys() & slugs:
        _add(packaged, importlib.import_module(modules[slug]), {})
    return dict(sorted({**packaged, **found}.items()))


def _add(found: dict[str, Recipe], value: Any, taken: Mapping[str, str]) -> None:
    for item in vars(value).values() if inspect.ismodule(value) else (value,):
        if not isinstance(item, Recipe):
            continue
        other = found.setdefault(item.slug, item)
        there = taken.get(item.slug, other.module)
        if other is not item or there != item.module:
            raise PlanError(
                f"two recipes are called {item.slug!r}: {there} and {item.module}; "
                "rename one function"
            )
