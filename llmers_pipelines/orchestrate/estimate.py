"""What a materialization would cost, before anything runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..plan import Generate, Node, Teach
from .context import StepContext
from .publish import stale_because


def estimate(nodes: Iterable[Node], ctx: StepContext) -> list[dict[str, Any]]:
    """Return key, state, stored rows, LLM calls and answers in store of ``nodes``, inputs first.

    The state is "fresh", why the node would do work, or which input has to be made first: a node
    behind one that changes does work only if the content changes. ``llm_calls`` is None where the
    inputs that decide the prompts are not there yet.
    """
    rows: dict[str, dict[str, Any]] = {}
    for node in nodes:
        why = stale_because(node, ctx)
        first = next((n.name for n in node.inputs if rows.get(n.name, {}).get("state", "fresh")
                      != "fresh"), "")  # fmt: skip
        have = ctx.manifests.current(ctx.dataset, node.name)
        row: dict[str, Any] = {
            "key": node.name, "state": why or (f"after {first}" if first else "fresh"),
            "rows": have.rows if have else None, "llm_calls": 0, "stored": 0,
        }  # fmt: skip
        if _asks(node) and row["state"] != "fresh":
            row |= _calls(node, ctx)
        rows[node.name] = row
    return list(rows.values())


def _asks(node: Node) -> bool:
    return isinstance(node, Generate) or (isinstance(node, Teach) and node.how.asks_model)


def _calls(node: Node, ctx: StepContext) -> dict[str, Any]:
    from .steps import generate, teach

    return (teach if isinstance(node, Teach) else generate).count_requests(node, ctx)
