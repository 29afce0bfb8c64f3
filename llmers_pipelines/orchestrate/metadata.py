"""What a person sees of a materialization: counts, columns, where each column comes from."""

from __future__ import annotations

from typing import Any

import dagster as dg

from ..config import Settings
from ..plan import Node, Train
from ..store.manifests import ManifestStore
from .lineage_url import asset_path, lineage_root
from .markdown import cut, fitting
from .plots import shown
from .publish import Published

# Counts of nothing are left out, but for those that people look for.
_TOLD_AT_ZERO = ("llm_calls", "cache_hits", "quarantined", "encoded", "trained now")


def metadata_of(node: Node, done: Published, settings: Settings) -> dict[str, Any]:
    """Return Dagster metadata of one published version: results first, identity last."""
    manifest = done.manifest
    out: dict[str, Any] = {"status": done.status, "seconds": round(done.seconds, 3)}
    if manifest.columns:  # weights and pointers are no tables
        out["dagster/row_count"] = manifest.rows
    if manifest.flags:
        out["flags"] = ", ".join(manifest.flags)
    for name, value in manifest.counts.items():
        if isinstance(value, (int, float, str)) and (value != 0 or name in _TOLD_AT_ZERO):
            shorter = round(value, 6) if isinstance(value, float) else value
            out.setdefault(name, shorter)  # "seconds" is this step's, not the answers'
    if manifest.info.get("device"):
        out["device"] = str(manifest.info["device"])
    page = lineage_root(settings) + asset_path(manifest.dataset, manifest.name)
    out["lineage"] = dg.MetadataValue.url(page)
    if manifest.info.get("mlflow_run"):
        out["mlflow_run"] = run_link(settings, str(manifest.info["mlflow_run"]))
    if manifest.info.get("version") and manifest.info.get("model_name"):
        page = f"models/{manifest.info['model_name']}/versions/{manifest.info['version']}"
        out["mlflow_model"] = dg.MetadataValue.url(f"{settings.mlflow_ui}/#/{page}")
    for name, picture in shown(ManifestStore(settings.data).path(manifest)).items():
        out[f"plot of {name}"] = dg.MetadataValue.md(picture)
    if manifest.info.get("plot"):
        out["plot"] = dg.MetadataValue.md(
            f"![intervals](data:image/png;base64,{manifest.info['plot']})"
        )
    if manifest.info.get("report"):
        out["report"] = dg.MetadataValue.md(str(manifest.info["report"]))
    if manifest.info.get("preview"):
        title = "by epoch" if isinstance(node, Train) else "sample rows"
        out[title] = dg.MetadataValue.md(fitting(str(manifest.info["preview"])))
    if manifest.info.get("quarantine"):
        out["quarantined rows"] = dg.MetadataValue.md(fitting(str(manifest.info["quarantine"])))
    if manifest.info.get("estimate") and done.status == "materialized":
        out["estimate"] = dg.MetadataValue.md(_estimate_table(manifest.info["estimate"]))
    if manifest.columns:
        out["dagster/column_schema"] = dg.TableSchema(
            columns=[dg.TableColumn(n, t, description=d or None) for n, t, d in manifest.columns]
        )
    if manifest.lineage:
        out["dagster/column_lineage"] = dg.TableColumnLineage(
            {
                column: [dg.TableColumnDep(dg.AssetKey(a.split("/")), c) for a, c in deps]
                for column, deps in manifest.lineage.items()
            }
        )
        out["column_lineage"] = dg.MetadataValue.md(_lineage_table(manifest.lineage))
    out["made_from"] = dg.MetadataValue.md(_made_from(manifest))
    out["made_at"] = manifest.created
    out["digest"] = manifest.digest
    out["path"] = dg.MetadataValue.path(str(settings.data / "warehouse" / manifest.folder))
    return out


def run_link(settings: Settings, run: str) -> Any:
    """Return the address of a run in the MLflow UI."""
    return dg.MetadataValue.url(f"{settings.mlflow_ui}/#/runs/{run}")


def _made_from(manifest: Any) -> str:
    rows = [
        "| made from | version |",
        "|---|---|",
        f"| code and settings | `{manifest.code_version}` |",
    ]
    both = {**manifest.inputs, **manifest.sources}
    rows += [f"| {name} | `{cut(version)}` |" for name, version in both.items()]
    return "\n".join(rows)


def _estimate_table(found: dict[str, Any]) -> str:
    """Return a plan's figures against the actual ones."""
    rows = [f"| plan {found['plan']} | estimate | actual | error |", "|---|---|---|---|"]
    for name, pair in found.items():
        if isinstance(pair, dict) and "error_percent" in pair:
            cells = [pair["estimate"], pair["actual"], pair["error_percent"]]
            told = ["unknown" if c is None else _figure(c) for c in cells]
            percent = "" if cells[2] is None else " %"
            rows.append(f"| {name} | {told[0]} | {told[1]} | {told[2]}{percent} |")
    return "\n".join(rows)


def _figure(value: float) -> str:
    """Return counts in full and the rest in four digits."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.4g}"


def _lineage_table(lineage: dict[str, tuple[tuple[str, str], ...]]) -> str:
    rows = ["| column | comes from |", "|---|---|"]
    rows += [
        f"| `{column}` | {', '.join(f'{a} . `{c}`' for a, c in deps)} |"
        for column, deps in lineage.items()
    ]
    return "\n".join(rows)
