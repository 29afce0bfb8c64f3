"""How long the steps that ask no model take: by their earlier manifests, scaled by rows."""

from __future__ import annotations

from ..llm.figures import UNKNOWN, Figure
from ..plan import Node
from ..store.manifests import Manifest
from .context import StepContext


def effort(node: Node, ctx: StepContext) -> tuple[Figure, str]:
    """Return (seconds that a run of ``node`` took, for the rows its inputs have now; device).

    The version with the most seconds per row counts: one that found vectors or cells in the store
    says little of a run that has to make them. Of a training its own seconds count as well, which
    stay in its record when its cell is read back. Unknown where it never ran on this data set.
    """
    found = []
    for manifest in ctx.manifests.versions(ctx.dataset, node.name):
        seconds = max(manifest.seconds, float(manifest.counts.get("cpu_seconds") or 0.0))
        scale, told = _scale(node, manifest, ctx)
        found.append((seconds * scale, seconds, told, str(manifest.info.get("device", ""))))
    if not found:
        return UNKNOWN, ""
    value, seconds, told, device = max(found)
    where = f" on {device}" if device else ""
    detail = f"{seconds:,.1f} s{where} in an earlier run{told}"
    return Figure(value, "earlier runs", detail=detail), device


def _scale(node: Node, then: Manifest, ctx: StepContext) -> tuple[float, str]:
    """Return rows of the largest input now over those at that time; 1 where either is unknown."""
    before = now = 0
    for source in node.inputs:
        version = then.inputs.get(source.name, "").split(" ")[0]
        old = ctx.manifests.version(ctx.dataset, source.name, version) if version else None
        new = ctx.manifests.current(ctx.dataset, source.name)
        if old and new and old.rows > before:
            before, now = old.rows, new.rows
    if not before or before == now:
        return 1.0, ""
    return now / before, f" of {before:,} rows; {now:,} now"
