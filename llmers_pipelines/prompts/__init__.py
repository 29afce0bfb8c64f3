"""What is asked of a language model: one task per file, with answer schema and grounding rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .task import PromptTask


def all_tasks() -> dict[str, type[PromptTask]]:
    """Return every prompt task of this package by its snake-case name."""
    import importlib
    import inspect
    import pkgutil

    from ..plan import snake
    from .task import PromptTask

    found = {}
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            task = inspect.isclass(value) and issubclass(value, PromptTask)
            public = value is not PromptTask and not getattr(value, "__name__", "_").startswith("_")
            if task and value.__module__ == module.name and public:
                found[snake(value.__name__)] = value
    return dict(sorted(found.items()))
