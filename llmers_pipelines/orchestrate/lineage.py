"""Column lineage: which columns of its inputs a step reads."""

from __future__ import annotations

from collections.abc import Iterable

from ..plan import Generate, Node, Table
from .context import StepContext


def columns_read(nodes: Iterable[Node], ctx: StepContext) -> tuple[tuple[str, str], ...]:
    """Return (asset, column) of what is read of ``nodes``; each column is in that asset's schema.

    Of items and users these are the id and the declared words, of answers the text, of every other
    table all columns.
    """
    return tuple(
        (node.name, column)
        for node in nodes
        for column, *_ in ctx.manifest(node).columns
        if _is_read(node, column, ctx)
    )


def _is_read(node: Node, column: str, ctx: StepContext) -> bool:
    if isinstance(node, Table) and node.table in ("items", "users"):
        return column in ("item_id", "user_id", "title") or column in ctx.field_kinds
    return column == "text" if isinstance(node, Generate) else True
