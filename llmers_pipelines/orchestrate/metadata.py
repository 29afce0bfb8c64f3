"""What a person sees of a materialization: counts, columns, where each column comes from."""

from __future__ import annotations

from typing import Any

import dagster as dg

from ..config import Settings
from ..plan import Node
from .lineage_url import asset_path, lineage_root
from .publish import Published


def metadata_of(node: Node, done: Published, settings: Settings) -> dict[str, Any]:
    """Return Dagster metadata of one published version."""
    manifest = done.manifest
    out: dict[str, Any] = {
        "dagster/row_count": manifest.rows,
        "status": done.status,
        "seconds": round(done.seconds, 3),
        "made_at": manifest.created,
        "digest": manifest.digest,
        "path": dg.MetadataValue.path(str(settings.data / "warehouse" / manifest.folder)),
        "made_from": dg.MetadataValue.md(_made_from(manifest)),
    }
    for name, value in manifest.counts.items():
        if isinstance(value, (int, float, str)):
            out.setdefault(name, value)  # "seconds" is this step's, not the answers'
    for name in ("report", "preview"):
        if manifest.info.get(name):
            out[name] = dg.MetadataValue.md(str(manifest.info[name]))
    for name in ("mlflow_run", "model_version"):
        if manifest.info.get(name):
            out[name] = str(manifest.info[name])
    if manifest.info.get("plot"):
        out["plot"] = dg.MetadataValue.md(
            f"![intervals](data:image/png;base64,{manifest.info['plot']})"
        )
    if manifest.info.get("estimate") and done.status == "materialized":
        out["estimate"] = dg.MetadataValue.md(_estimate_table(manifest.info["estimate"]))
    if manifest.flags:
        out["flags"] = ", ".join(manifest.flags)
    if manifest.columns:
        out["dagster/column_schema"] = dg.TableSchema(
            columns=[dg.TableColumn(n, t, description=d or None) for n, t, d in manifest.columns]
        )
    page = lineage_root(settings) + asset_path(manifest.dataset, manifest.name)
    out["lineage"] = dg.MetadataValue.url(page)
    if manifest.lineage:
        out["dagster/column_lineage"] = dg.TableColumnLineage(
            {
                column: [dg.TableColumnDep(dg.AssetKey(a.split("/")), c) for a, c in deps]
                for column, deps in manifest.lineage.items()
            }
        )
        out["column_lineage"] = dg.MetadataValue.md(_lineage_table(manifest.lineage))
    return out


def _made_from(manifest: Any) -> str:
    rows = [
        "| made from | version |",
        "|---|---|",
        f"| code and settings | `{manifest.code_version}` |",
    ]
    rows += [f"| {name} | `{version}` |" for name, version in manifest.inputs.items()]
    rows += [f"| {name} | `{version}` |" for name, version in manifest.sources.items()]
    return "\n".join(rows)


def _estimate_table(found: dict[str, Any]) -> str:
    """Return a plan's figures against the actual ones."""
    rows = [f"| plan {found['plan']} | estimate | actual | error |", "|---|---|---|---|"]
    for name, pair in found.items():
        if isinstance(pair, dict) and "error_percent" in pair:
            cells = [pair["estimate"], pair["actual"], pair["error_percent"]]
            told = ["unknown" if c is None else f"{c:,.4g}" for c in cells]
            rows.append(f"| {name} | {told[0]} | {told[1]} | {told[2]} % |")
    return "\n".join(rows)


def _lineage_table(lineage: dict[str, tuple[tuple[str, str], ...]]) -> str:
    rows = ["| column | comes from |", "|---|---|"]
    rows += [
        f"| `{column}` | {', '.join(f'{a} . `{c}`' for a, c in deps)} |"
        for column, deps in lineage.items()
    ]
    return "\n".join(rows)
