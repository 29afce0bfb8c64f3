"""Which requests of a selection are missing, and which of those sent are still unanswered."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..plan import Generate, Node
from .context import StepContext, StepError
from .publish import stale_because
from .steps.generate import pending_asks


def missing(nodes: Iterable[Node], ctx: StepContext) -> tuple[list[Any], dict[str, str]]:
    """Return ``batch_export.Pending`` per asset that asks a model, and why others have to wait."""
    from ..llm.batch_export import Pending

    parts, left = [], {}
    for node in nodes:
        if not isinstance(node, Generate):
            continue
        try:
            stale = {n.name: stale_because(n, ctx) for n in node.inputs}
            if why := next((f"{n} is to be made first ({w})" for n, w in stale.items() if w), ""):
                left[node.name] = why
                continue
            asks = pending_asks(node, ctx)
        except StepError as error:
            left[node.name] = str(error)
            continue
        if asks is None:
            continue  # template or recorded answers: nothing is asked of a model
        about = {"task": node.task.produces, "prompt_revision": node.task.prompt_revision}
        parts.append(Pending(node.name, ctx.dataset, asks, about))
    return parts, left
