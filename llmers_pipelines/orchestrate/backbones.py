"""The backbones that the package brings, by their slugs."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache

from ..models.seams import Backbone
from ..plan import snake


@cache
def backbones() -> dict[str, type[Backbone]]:
    """Return every packaged backbone class by its slug."""
    from .. import models as package

    found: dict[str, type[Backbone]] = {}
    for info in pkgutil.iter_modules(package.__path__):
        if info.name.endswith("_net") or info.name == "served":
            continue
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for value in vars(module).values():
            if (
                inspect.isclass(value)
                and issubclass(value, Backbone)
                and value.__module__ == module.__name__
                and value.tasks
            ):
                found[snake(value.__name__)] = value
    return dict(sorted(found.items()))
