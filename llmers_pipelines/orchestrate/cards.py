"""Recipe cards for people and scripts; proofs come from records, never from typing."""

from __future__ import annotations

from typing import Any

from ..config import Method, Settings
from ..plan import Embed, Generate, PlanError, Teach, Tune, walk
from ..recipe import Recipe, discover
from .build import bind, fitting_backbones, instantiate
from .records import proofs_of


def cards(settings: Settings) -> list[dict[str, Any]]:
    """Return one card per recipe, in the shape of ``llmers recipes --json``."""
    found = discover()
    return [_card(recipe, found, settings) for recipe in found.values()]


def card(name: str, settings: Settings) -> dict[str, Any]:
    """Return the card of one recipe (slug or display name), with its settings and assets."""
    found = discover()
    by_name = {r.name.lower(): r.slug for r in found.values()}
    slug = name if name in found else by_name.get(name.lower(), "")
    if not slug:
        raise PlanError(f"no recipe {name!r}; known: {', '.join(found)}")
    recipe = found[slug]
    _, train = instantiate(Method(slug), found)
    out = _card(recipe, found, settings)
    out["doc"] = recipe.doc
    out["settings"] = {k: repr(v) for k, v in recipe.settings.items()}
    out["assets"] = [n.name for n in walk([bind(train, settings)])]
    return out


def _card(recipe: Recipe, found: dict[str, Recipe], settings: Settings) -> dict[str, Any]:
    _, train = instantiate(Method(recipe.slug), found)
    nodes = walk([bind(train, settings)])
    fitting = fitting_backbones(recipe)
    outputs = [n.prefix for n in nodes if isinstance(n, (Generate, Embed, Teach, Tune))]
    return {
        "slug": recipe.slug,
        "name": recipe.name,
        "family": recipe.family,
        "paper": recipe.paper,
        "task": recipe.task,
        "llm_outputs": list(dict.fromkeys(outputs)),
        "backbones": list(fitting),
        "backbone_settings": {slug: needed for slug, needed in fitting.items() if needed},
        "proofs": proofs_of(recipe, settings),
    }
