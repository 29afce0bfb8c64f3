"""Row lineage: one row of an asset back to the catalog, and forward to what consumed it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..data.training import SPLIT_NAMES, TrainingData
from ..data.vectors import VectorTable
from ..plan import Derive, Embed, Generate, Node, Table, Teach, walk
from .build import Plan
from .context import StepContext, StepError

_HISTORY = 20  # newest training rows shown of a user


def trace_row(plan: Plan, asset: str, row_id: str, ctx: StepContext) -> dict[str, Any]:
    """Return ``{"asset", "id", "back": {...}, "forward": [...]}`` of one row.

    Raises ``StepError`` where the asset holds no such row.
    """
    node = plan.node(asset)
    back = _back(node, row_id, ctx, {})
    if not back["row"]:
        raise StepError(
            f"{asset} of data set {ctx.dataset!r} has no row {row_id!r}; see "
            f"`llmers sql` or the catalog for its ids"
        )
    return {"asset": asset, "dataset": ctx.dataset, "id": row_id, "back": back,
            "forward": _forward(plan, node, ctx)}  # fmt: skip


def _back(node: Node, row_id: str, ctx: StepContext, seen: dict[Node, None]) -> dict[str, Any]:
    seen[node] = None
    manifest = ctx.manifest(node)
    step: dict[str, Any] = {
        "asset": node.name, "data_version": manifest.data_version,
        "code_version": manifest.code_version, "made": manifest.created,
        "sources": manifest.sources, "row": _row(node, row_id, ctx), "from": [],
    }  # fmt: skip
    if isinstance(node, Embed):
        step["encoder"] = manifest.info.get("encoder")
    for parent in node.inputs:
        if parent not in seen and _carries(parent, node, row_id, ctx):
            step["from"].append(_back(parent, row_id, ctx, seen))
    return step


def _carries(parent: Node, node: Node, row_id: str, ctx: StepContext) -> bool:
    """Say whether ``parent`` holds something of this row: same entity, or the user's log."""
    return bool(_row(parent, row_id, ctx))


def _row(node: Node, row_id: str, ctx: StepContext) -> dict[str, Any]:
    artifact = ctx.load(node)
    if isinstance(artifact, TrainingData):
        return _log_row(artifact, row_id)
    if isinstance(artifact, VectorTable):
        if row_id not in artifact.ids:
            return {}
        at = artifact.ids.index(row_id)
        vector = np.asarray(artifact.vectors[at])
        row = {"mask": bool(artifact.mask[at]), "norm": round(float(np.linalg.norm(vector)), 6),
               "vector": [round(float(v), 4) for v in vector[:8]]}  # fmt: skip
        if isinstance(node, Embed):
            from .steps.embed import texts_of

            texts = texts_of(node, ctx)
            row["text"] = texts.texts[texts.ids.index(row_id)] if row_id in texts.ids else ""
        return row
    if isinstance(artifact, pa.Table):
        return _table_row(node, artifact, row_id, ctx)
    return {}


def _table_row(node: Node, table: pa.Table, row_id: str, ctx: StepContext) -> dict[str, Any]:
    if isinstance(node, Table) and node.table == "interactions":
        return {}
    if isinstance(node, Teach):
        return _ranking_rows(table, row_id)
    column = next((c for c in ("item_id", "user_id") if c in table.column_names), None)
    if column is None:
        return {}
    rows = table.filter(pc.equal(table[column], row_id)).to_pylist()
    if not rows:
        return {}
    if isinstance(node, Derive):
        return {"rows": rows}
    row = {k: v for k, v in rows[0].items() if v is not None}
    if isinstance(node, Generate):
        from .steps.generate import rendered_prompt

        row["rendered_prompt"] = rendered_prompt(node, row_id, ctx)
    return row


def _ranking_rows(table: pa.Table, row_id: str) -> dict[str, Any]:
    """Return the newest ranking of a user, or how often and at which ranks an item was taught."""
    mine = table.filter(pc.equal(table["user_id"], row_id))
    if mine.num_rows:
        newest = pc.max(mine["position"]).as_py()
        rows = mine.filter(pc.equal(mine["position"], newest)).sort_by("rank").to_pylist()
        positions = len(mine["position"].unique())
        return {"positions": positions, "newest_position": newest, "ranking": rows}
    mine = table.filter(pc.equal(table["item_id"], row_id))
    if not mine.num_rows:
        return {}
    return {"rankings": mine.num_rows, "mean_rank": round(pc.mean(mine["rank"]).as_py(), 2)}


def _log_row(data: TrainingData, row_id: str) -> dict[str, Any]:
    user = int(data.users.index([row_id])[0])
    if user:
        rows = slice(data.user_start[user], data.user_start[user + 1])
        known = np.isin(data.split[rows], (0, 3))
        items = [data.items.ids[i - 1] for i in data.item[rows][known]]
        return {"training_rows": int(known.sum()), "newest_training_items": items[-_HISTORY:]}
    item = int(data.items.index([row_id])[0])
    if item:
        here = data.item == item
        return {f"{name}_rows": int((here & (data.split == s)).sum())
                for s, name in enumerate(SPLIT_NAMES)}  # fmt: skip
    return {}


def _forward(plan: Plan, node: Node, ctx: StepContext) -> list[dict[str, Any]]:
    version = ctx.manifest(node).data_version
    out = []
    for other in plan.nodes:
        if other == node or node not in walk([other]):
            continue
        manifest = ctx.manifests.current(ctx.dataset, other.name)
        if manifest is None:
            continue
        direct = manifest.inputs.get(node.name)
        out.append({
            "asset": other.name, "data_version": manifest.data_version,
            "direct": direct is not None,
            "current": direct is None or direct.split()[0] == version,
            **({"model": manifest.info["model_name"], "model_version": manifest.info["version"]}
               if manifest.info.get("version") else {}),
        })  # fmt: skip
    return out


def render(found: dict[str, Any]) -> str:
    """Return the trace as indented text."""
    lines = [f"{found['asset']} row {found['id']} of {found['dataset']}", ""]
    _lines(found["back"], 0, lines)
    lines += ["", "consumed by"]
    for row in found["forward"]:
        model = f"  -> {row['model']} version {row['model_version']}" if "model" in row else ""
        stale = "" if row["current"] else "  (an older version)"
        lines.append(f"  {row['asset']} @ {row['data_version']}{model}{stale}")
    if not found["forward"]:
        lines.append("  nothing yet")
    return "\n".join(lines)


def _lines(step: dict[str, Any], depth: int, lines: list[str]) -> None:
    pad = "  " * depth
    lines.append(f"{pad}{step['asset']} @ {step['data_version']} (code {step['code_version']})")
    for name, value in {**step["sources"], **({"encoder": step["encoder"]} if step.get("encoder")
                                              else {})}.items():  # fmt: skip
        lines.append(f"{pad}  [{name}] {str(value)[:110]}")
    for name, value in step["row"].items():
        if name == "rendered_prompt":
            lines.append(f"{pad}  rendered prompt:")
            for message in value:
                for text in str(message["content"]).splitlines():
                    lines.append(f"{pad}    {message['role']}| {text}")
            continue
        text = str(value).replace("\n", f"\n{pad}    ")
        lines.append(f"{pad}  {name}: {text[:1200]}")
    for parent in step["from"]:
        _lines(parent, depth + 1, lines)
