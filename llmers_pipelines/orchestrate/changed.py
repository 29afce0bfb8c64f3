"""Other settings for a component, or for the parts of a method, as a toml or a form gives them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..plan import Component, PlanError, Train, snake


def changed(settings: Any, given: Mapping[str, Any], owner: str) -> Any:
    """Return ``settings`` with what a toml gives; tables change a component inside."""
    values = {}
    for name, value in given.items():
        now = getattr(settings, name, None)
        if name not in (known := [f.name for f in dataclasses.fields(settings)]):
            what = type(settings).__name__
            raise PlanError(f"{owner}: {what} has no setting {name!r}; it has {', '.join(known)}")
        if isinstance(value, Mapping) and isinstance(now, Component):
            value = changed(now, value, owner)
        elif isinstance(value, list):
            value = tuple(value)
        elif isinstance(now, float) and isinstance(value, int):
            value = float(value)
        if now is not None and type(value) is not type(now):
            raise PlanError(f"{owner}: {name} = {value!r} is not like the default {now!r}")
        values[name] = value
    return dataclasses.replace(settings, **values)


def changed_parts(node: Train, given: Mapping[str, Any], owner: str) -> Train:
    """Return ``node`` with other settings of its parts, by name: ``{"dual_view": {...}}``."""
    names = {snake(type(p).__name__) for p in node.parts}
    if unknown := sorted(set(given) - names):
        raise PlanError(
            f"{owner}: {node.name} has no part {unknown[0]!r}; it has "
            f"{', '.join(sorted(names)) or 'none'}"
        )
    out = {
        place: tuple(
            changed(p, given[n], f"{owner}.{n}") if (n := snake(type(p).__name__)) in given else p
            for p in getattr(node, place)
        )
        for place in ("init", "fuse", "aux")
    }
    return dataclasses.replace(node, **out)


def told(parts: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the settings of parts as they stand in a label."""
    out = []
    for name, value in parts.items():
        inner = isinstance(value, Mapping)
        out += told(value, f"{name}_") if inner else [f"{prefix}{name}{value}"]
    return out
