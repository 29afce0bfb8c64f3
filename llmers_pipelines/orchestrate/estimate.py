"""What a materialization would cost, before anything runs."""

from __future__ import annotations

from typing import Any

from ..plan import Generate, Node
from .context import StepContext
from .publish import stale_because


def estimate(node: Node, ctx: StepContext) -> dict[str, Any]:
    """Return key, state, stored rows and, for generated assets, calls and answers in store.

    ``llm_calls`` is None where the inputs that decide the prompts are not materialized yet.
    """
    why = stale_because(node, ctx)
    have = ctx.manifests.current(ctx.dataset, node.name)
    row: dict[str, Any] = {
        "key": node.name, "state": "fresh" if not why else why,
        "rows": have.rows if have else None, "llm_calls": 0, "stored": 0,
    }  # fmt: skip
    if isinstance(node, Generate) and why:
        from .steps.generate import count_requests

        row |= count_requests(node, ctx)
    return row
