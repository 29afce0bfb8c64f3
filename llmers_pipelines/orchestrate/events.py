"""What a step says to Dagster besides its materialization: progress, experiments, the last line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg

from ..plan import Node, Train
from .chain import Made, bill
from .context import StepContext
from .markdown import fitting
from .metadata import run_link
from .plots import curve, inline
from .progress import Figures
from .publish import Published

if TYPE_CHECKING:
    from .experiment import Tried

EXPERIMENT_TAG = "llmers/experiment"


def observe(
    context: dg.AssetExecutionContext, node: Node, text: str, figures: Figures
) -> None:
    """Add progress to the asset's history: a description, numbers and pictures."""
    context.log_event(
        dg.AssetObservation(
            dg.AssetKey(list(node.key)), partition=context.partition_key, description=text,
            metadata={k: dg.MetadataValue.md(v) if isinstance(v, str) else v
                      for k, v in figures.items()},
        )
    )  # fmt: skip


def is_one_of_many(context: dg.AssetExecutionContext) -> bool:
    """Say whether a run was asked for more than this asset: a job, a family, a backfill."""
    return len(context.job_def.asset_layer.selected_asset_keys) > 1


def told_end(node: Node, done: Published) -> str:
    """Return the last line of a step's log."""
    manifest = done.manifest
    if done.status == "reused":
        return (
            f"{node.name}: nothing it is made of has changed, so version {manifest.data_version} "
            f"stands ({manifest.rows:,} rows, of {manifest.created}); no work was done"
        )
    shown = ("llm_calls", "cache_hits", "quarantined", "encoded", "epochs", "best_valid",
             "tokens_in", "tokens_out", "money")  # fmt: skip
    counts = [f"{k} {manifest.counts[k]:,}" for k in shown
              if isinstance(manifest.counts.get(k), (int, float))]  # fmt: skip
    told = f"; {', '.join(counts)}" if counts else ""
    held = f"; HELD: blocking check {manifest.held_by[0]} failed" if manifest.held_by else ""
    return (
        f"{node.name}: version {manifest.data_version} made in {done.seconds:.1f} s, "
        f"{manifest.rows:,} rows{told}{held}"
    )


def tell_experiment(
    context: dg.AssetExecutionContext, node: Train, wanted: Mapping[str, Any], ctx: StepContext
) -> None:
    """Run an experiment and say on every side that it is one."""
    from .experiment import run_experiment  # most runs are none

    _announce(context, node, wanted, "it is tracked in MLflow")
    tried = run_experiment(node, wanted, ctx)
    record = tried.cell.record
    result = _result(tried)
    again = "" if tried.cell.trained_now else " (read back: the same one ran before)"
    context.log.warning(
        f"{node.name}: EXPERIMENT done{again}: {result}; no version was published. To keep its "
        "settings, write them into llmers.toml"
    )
    picture = curve(tried.cell.folder)
    context.log_event(
        dg.AssetObservation(
            dg.AssetKey(list(node.key)), partition=context.partition_key,
            description=f"Experiment, no version published: {result}",
            metadata={
                "experiment": dg.MetadataValue.md(_table(tried)),
                "best_valid": round(record["best_valid"], 6), "epochs": record["epochs"],
                "best_epoch": record["best_epoch"], "seconds": record["seconds"],
                "published": "no", **_made(tried.made),
                "mlflow_run": run_link(ctx.settings, record["mlflow_run"]),
                **({"plot of epochs": dg.MetadataValue.md(inline(picture, "epochs"))}
                   if picture else {}),
            },
        )
    )  # fmt: skip


def tell_table(
    context: dg.AssetExecutionContext, node: Node, wanted: Mapping[str, Any], ctx: StepContext
) -> None:
    """Make answers, vectors or rankings by other models and say on every side that it is a try."""
    from .experiment import run_table

    _announce(context, node, wanted, "the table is made in a place apart")
    tried = run_table(node, wanted, ctx)
    manifest = tried.made[-1].manifest
    result = f"{manifest.rows:,} rows in {tried.folder}"
    context.log.warning(f"{node.name}: EXPERIMENT done: {result}; no version was published")
    preview = manifest.info.get("preview")
    context.log_event(
        dg.AssetObservation(
            dg.AssetKey(list(node.key)), partition=context.partition_key,
            description=f"Experiment, no version published: {manifest.rows:,} rows",
            metadata={
                "experiment": dg.MetadataValue.md("\n".join(_rows(tried.differs))),
                "rows": manifest.rows, "published": "no", **_made(tried.made),
                "path": dg.MetadataValue.path(tried.folder),
                **({"sample rows": dg.MetadataValue.md(fitting(preview))} if preview else {}),
            },
        )
    )  # fmt: skip


def _announce(
    context: dg.AssetExecutionContext, node: Node, wanted: Mapping[str, Any], what: str
) -> None:
    context.log.warning(
        f"{node.name}: EXPERIMENT with {_words(wanted)}: {what}, publishes no version, and "
        "everything downstream is skipped"
    )
    context.instance.add_run_tags(context.run_id, {EXPERIMENT_TAG: f"{node.name}: no version"})


def _made(made: tuple[Made, ...]) -> dict[str, Any]:
    """Return what other models made: a table of assets, and what all of them cost together."""
    if not made:
        return {}
    rows = ["| made apart, not published | rows | refused | LLM calls | tokens | money | "
            "texts encoded | |", "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for step in made:
        counts = {**step.counts}
        counts["tokens"] = counts.get("tokens_in", 0) + counts.get("tokens_out", 0)
        told = [step.manifest.name, f"{step.manifest.rows:,}",
                str(step.manifest.counts.get("quarantined", "")),
                *(f"{counts[n]:,g}" if n in counts else ""
                  for n in ("llm_calls", "tokens", "money", "encoded")),
                "in this run" if step.now else "before"]  # fmt: skip
        rows.append(f"| {' | '.join(map(str, told))} |")
    failed = [f"{step.manifest.name}: {c.name}" for step in made
              for c in step.manifest.checks if not c.passed]  # fmt: skip
    flags = sorted({flag for step in made for flag in step.manifest.flags})
    return {
        "made apart": dg.MetadataValue.md("\n".join(rows)),
        **{f"{name} of what was made apart": value for name, value in bill(made).items()},
        **({"flags": ", ".join(flags)} if flags else {}),
        **({"failed checks": ", ".join(failed)} if failed else {}),
    }  # fmt: skip


def _words(wanted: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} = {v}" for k, v in wanted.items() if v is not None and v != {})


def _result(tried: Tried) -> str:
    valid = tried.cell.record["best_valid"]
    if tried.published is None:
        return f"{tried.metric} {valid:.4f} on validation; the asset has no version to compare with"
    gain = valid - tried.published
    return f"{tried.metric} {valid:.4f} on validation, {gain:+.4f} to the published version"


def _table(tried: Tried) -> str:
    rows = _rows(tried.differs)
    best = "" if tried.published is None else f"{tried.published:.4f}"
    rows.append(f"| {tried.metric} | {best} | {tried.cell.record['best_valid']:.4f} |")
    return "\n".join(rows)


def _rows(differs: Mapping[str, tuple[Any, Any]]) -> list[str]:
    rows = ["| setting | published | experiment |", "|---|---|---|"]
    return rows + [f"| {name} | {was} | {now} |" for name, (was, now) in differs.items()]


@contextmanager
def threads(wanted: int) -> Iterator[None]:
    """Let torch compute with so many CPU threads inside; 0 leaves it as it is."""
    if not wanted:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)
