"""One module per verb: what a materialization of it does, without Dagster."""

from __future__ import annotations

import importlib
from typing import Any

from ...plan import Node


def _module(node: Node) -> Any:
    return importlib.import_module(f"{__name__}.{node.verb}")


def run_verb(node: Node, ctx: Any) -> Any:
    """Run the verb of ``node`` and return its ``Outcome``."""
    return _module(node).run(node, ctx)


def sources_of(node: Node, ctx: Any) -> dict[str, str]:
    """Return hashes of what ``node`` reads besides its inputs: files, recorded answers, weights."""
    sources = getattr(_module(node), "sources", None)
    return sources(node, ctx) if sources else {}
