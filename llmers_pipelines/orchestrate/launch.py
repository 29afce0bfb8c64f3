"""Materialize a selection in this process, as one Dagster run that the UI shows."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import dagster as dg

from ..config import Settings
from ..plan import Node
from .build import Plan
from .choices import asks, check_engines
from .context import StepContext, why_held
from .factories import asset_for
from .home import open_instance, process_tags
from .plans import compared
from .publish import stale_because
from .run_config import config_for

_COUNTS = ("llm_calls", "cache_hits", "repaired", "quarantined", "attempts", "throttled",
           "tokens_in", "tokens_out", "tokens_cached")  # fmt: skip


def launch(
    plan: Plan,
    nodes: list[Node],
    dataset: str,
    settings: Settings,
    *,
    force: bool = False,
    limits: dict[str, Any] | None = None,
    on_step: Callable[[str, str, float], None] | None = None,
) -> dict[str, Any]:
    """Run ``nodes`` (in dependency order) for ``dataset`` and return the run's report.

    The report is the document of ``llmers run --json``; its ``estimate`` holds the figures of the
    plan that was made before, against the actual ones (None where there was no plan). Where nothing
    is stale no run is started and ``run_id`` is None: there is nothing that Dagster would have to
    know.
    """
    started = time.perf_counter()
    ctx = StepContext(settings, dataset)
    if not force and not any(stale_because(n, ctx) for n in nodes):
        rows = _rows(nodes, ctx, {n.name: "reused" for n in nodes}, {}, {}, {})
        done = round(time.perf_counter() - started, 2)
        return {"run_id": None, "success": True, **rows, "seconds": done, "estimate": None}
    check_engines(nodes, ctx, force=force)
    instance = open_instance(settings)
    assets = [asset_for(n, plan, settings, on_step) for n in nodes]
    config = {"force": force, **(limits or {})}
    configs = {n.name: config_for(n, {k: v for k, v in config.items() if v}) for n in nodes}
    # The report names each failure; Dagster's console would add a line for everything behind it.
    run_config: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    run_config["ops"] = {
        a.op.name: {"config": configs[n.name]}
        for a, n in zip(assets, nodes, strict=True) if configs[n.name]
    }  # fmt: skip
    result = dg.materialize(
        assets,
        partition_key=dataset,
        instance=instance,
        raise_on_error=False,
        run_config=run_config,
        tags={"llmers/dataset": dataset, **process_tags()},
    )
    done = round(time.perf_counter() - started, 2)
    report = {"run_id": result.run_id, "success": result.success,
              **_outcome(result, nodes, ctx), "seconds": done}  # fmt: skip
    # What asks a model and failed may have left a line of it; any other step left nothing.
    told = {n.name for n in nodes if asks(n)}
    worked = [r["key"] for r in report["assets"] if r["status"] == "materialized"
              or (r["key"] in told and r["status"] not in ("reused", "skipped"))]  # fmt: skip
    return {**report, "estimate": compared(ctx, worked, run=result.run_id)}


def _outcome(result: Any, nodes: list[Node], ctx: StepContext) -> dict[str, Any]:
    """Return assets and metrics as the run's events tell of them."""
    status: dict[str, str] = {}
    seconds: dict[str, float] = {}
    errors: dict[str, str] = {}
    told: dict[str, dict[str, Any]] = {}
    names = {"__".join(n.key): n for n in nodes}
    for event in result.all_events:
        if event.is_step_materialization:
            metadata = event.materialization.metadata
            name = "/".join(event.asset_key.path)
            status[name] = str(metadata["status"].value)
            seconds[name] = float(metadata["seconds"].value)
        elif event.is_step_failure and (node := names.get(event.step_key)) is not None:
            manifest = ctx.manifests.current(ctx.dataset, node.name)
            if node.name in status and manifest is not None and manifest.held_by:
                continue  # a blocking check failed: the manifest says which
            error = event.step_failure_data.error
            cause = error.cause or error
            # Our own errors speak for themselves; of any other the class is part of the message.
            text = re.sub(r"^llmers_pipelines\.[\w.]+: ", "", cause.message.strip())
            errors[node.name] = text
            given = event.step_failure_data.user_failure_data
            told[node.name] = {k: v.value for k, v in given.metadata.items()} if given else {}
    return _rows(nodes, ctx, status, seconds, errors, told)


def _rows(
    nodes: list[Node],
    ctx: StepContext,
    status: dict[str, str],
    seconds: dict[str, float],
    errors: dict[str, str],
    told: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Return one row per asset. ``told``: counts and state of steps that ended early."""
    rows, metrics = [], {}
    for node in nodes:
        manifest = ctx.manifests.current(ctx.dataset, node.name)
        early = told.get(node.name, {})
        failed = early.get("state", "failed") if node.name in errors else "skipped"
        state = status.get(node.name) or failed
        counts = manifest.counts if manifest is not None and state == "materialized" else early
        row = {
            "key": node.name,
            "status": state,
            "rows": manifest.rows if manifest else 0,
            **{c: int(counts.get(c, 0)) for c in _COUNTS},
            "money": float(counts.get("money", 0.0)),
            "seconds": seconds.get(node.name, 0.0),
            "data_version": manifest.data_version if manifest else None,
        }
        if state == "reused" and node.verb == "generate" and manifest is not None:
            row["cache_hits"] = manifest.rows
        if node.name in errors:
            row["error"] = errors[node.name]
        if "missing" in early:
            row["missing"] = int(early["missing"])
        if notes := counts.get("notes"):
            row["notes"] = str(notes)
        if manifest is not None and manifest.held_by and state == "materialized":
            row["held_by"] = manifest.held_by
            row["error"] = f"blocking check {manifest.held_by[0]} failed: {why_held(manifest)}"
        rows.append(row)
        if node.verb == "evaluate" and manifest is not None and state in ("materialized", "reused"):
            metrics[node.slug] = manifest.info.get("metrics", {})
    return {"assets": rows, "metrics": metrics}
