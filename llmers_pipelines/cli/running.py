"""``llmers run`` and ``llmers compare``."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING

import click

from .common import (
    dataset_option,
    emit,
    json_option,
    known_dataset,
    note,
    open_settings,
    runnable,
    settings_options,
    table,
)

if TYPE_CHECKING:
    from ..config import Settings


@click.command(
    epilog="Examples:\n\n\b\n  llmers run llm2x --dataset sample\n"
    "  llmers run knowledge -d ml100k\n"
    "  llmers run llm_embeddings/item_text -d amazon_office\n  llmers run all"
)
@click.argument("what", nargs=-1, required=True)
@dataset_option
@click.option("--force", is_flag=True, help="Do the work even where nothing changed.")
@click.option("--device", help="cpu, cuda or auto.")
@click.option("--budget-calls", type=int, help="Stop cleanly after this many LLM calls.")
@click.option("--budget-tokens", type=int, help="Stop cleanly after this many tokens.")
@click.option("--budget-money", type=float, help="Stop cleanly after this much money.")
@click.option("--warm-start", is_flag=True, help="Train on from the weights of the version before.")
@click.option("--seeds", type=int, help="Seeds per arm of the evaluation.")
@click.option("--versions", type=click.Path(), help="Write each asset's versions as JSON here.")
@json_option
@settings_options
def run(
    what: tuple[str, ...], dataset: str | None, force: bool, device: str | None,
    budget_calls: int | None, budget_tokens: int | None, budget_money: float | None,
    warm_start: bool, seeds: int | None, versions: str | None, as_json: bool, **flags,
) -> None:  # fmt: skip
    """Materialize WHAT (methods, families, groups, asset keys or 'all') with its inputs."""
    from ..orchestrate.build import build_plan
    from ..orchestrate.figures import write_versions
    from ..orchestrate.launch import launch

    settings = open_settings(seeds=seeds, warm_start=warm_start or None, **flags)
    dataset = dataset or settings.dataset
    known_dataset(dataset, settings)
    plan = build_plan(settings)
    nodes = runnable(plan, plan.select(what), dataset, settings)
    note(f"{len(nodes)} assets for data set {dataset!r}")
    done = itertools.count(1)

    def on_step(name: str, status: str, seconds: float) -> None:
        if sys.stderr.isatty():
            note(f"  {next(done):3}/{len(nodes)}  {status:12}  {name:56} {seconds:7.1f} s")

    limits = {"device": device, "budget_calls": budget_calls, "budget_tokens": budget_tokens,
              "budget_money": budget_money}  # fmt: skip
    report = launch(
        plan, nodes, dataset, settings, force=force,
        limits={k: v for k, v in limits.items() if v},
        on_step=on_step,
    )  # fmt: skip
    if versions and report["success"]:
        write_versions(report, dataset, versions)
    if as_json:
        emit(report)
    else:
        _show(report)
    sys.exit(0 if report["success"] else 1)


def _show(report: dict) -> None:
    rows = report["assets"]
    columns = ("key", "status", "rows", "llm_calls", "cache_hits", "seconds")
    table(columns, [[r[c] for c in columns] for r in rows])
    done = sum(r["status"] == "materialized" for r in rows)
    reused = sum(r["status"] == "reused" for r in rows)
    calls = sum(r["llm_calls"] for r in rows)
    click.echo(
        f"\n{done} materialized, {reused} reused, {calls} LLM calls{_cost(rows)}, "
        f"{report['seconds']} s, run {report['run_id'] or 'not needed'}"
    )
    if report["estimate"]:
        pairs = report["estimate"]["totals"].items()
        told = [f"{n} {p['error_percent']:+.1f} %" for n, p in pairs if p["error_percent"]
                is not None]  # fmt: skip
        click.echo(f"estimate against actual: {', '.join(told) or 'nothing was known'} "
                   "(`llmers plan --check` shows more)")  # fmt: skip
    for row in rows:
        if row.get("notes"):
            note(f"note: {row['key']}: {row['notes']}", fg="yellow")
        if row.get("error"):
            state = "failed" if row["status"] != "budget reached" else row["status"]
            note(f"{state}: {row['key']}: {row['error']}", fg="red")


def _cost(rows: list[dict]) -> str:
    """Return tokens, money, failed attempts and waits of a run, where there were any."""
    total = {name: sum(r[name] for r in rows) for name in (
        "tokens_in", "tokens_out", "money", "attempts", "llm_calls", "throttled")}  # fmt: skip
    parts = []
    if tokens := total["tokens_in"] + total["tokens_out"]:
        parts.append(f"{tokens:,} tokens")
    if total["money"]:
        parts.append(f"money {total['money']:.6g}")
    if (failed := total["attempts"] - total["llm_calls"]) > 0:
        parts.append(f"{failed} attempts more")
    if total["throttled"]:
        parts.append(f"{total['throttled']} times asked to wait")
    return f" ({', '.join(parts)})" if parts else ""


@click.command(epilog="Example: llmers compare --dataset sample --out report.md")
@dataset_option
@click.option("--task", help="Only this task.")
@click.option("--out", type=click.Path(), help="Write the report as Markdown here.")
@click.option("--metrics", type=click.Path(), help="Write task, method, figures as JSON here.")
@click.option("--plots", type=click.Path(), help="Write leaderboard.csv and epochs.csv here.")
@click.option(
    "--sampled", metavar="100u",
    help="Instead: metrics against 100 uniform (100p: popular) negatives, as in papers.",
)
@click.option("--all", "every", is_flag=True, help="Also methods that llmers.toml left out since.")
@json_option
@settings_options
def compare(
    dataset: str | None, task: str | None, out: str | None, metrics: str | None,
    plots: str | None, sampled: str | None, every: bool, as_json: bool, **flags,
) -> None:
    """Compare enhanced recommenders with their backbones and controls, with intervals."""
    from ..orchestrate.build import build_plan
    from ..orchestrate.compare import collect, leaderboard
    from ..orchestrate.figures import write_metrics, write_plots

    settings = open_settings(**flags)
    dataset = dataset or settings.dataset
    known_dataset(dataset, settings)
    if sampled:
        return _sampled(settings, dataset, task, sampled, as_json)
    chosen = None if every else [m.evaluate for m in build_plan(settings).methods]
    stored = {row["method"] for row in collect(settings, dataset, task)}
    rows = collect(settings, dataset, task, only=chosen)
    if others := len(stored - {row["method"] for row in rows}):
        note(f"{others} evaluated before are not in llmers.toml; --all shows them", fg="yellow")
    if not rows:
        raise click.ClickException(
            f"no evaluation of data set {dataset!r} is materialized; "
            f"run `llmers run all --dataset {dataset}` first"
        )
    report = leaderboard(settings, dataset, rows)
    path = settings.data / "reports" / f"{dataset}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    for target in {str(path), out or str(path)}:
        with open(target, "w", encoding="utf-8") as file:
            file.write(report)
    if metrics:
        write_metrics(rows, metrics)
    if plots:
        write_plots(settings, dataset, rows, plots)
    if as_json:
        return emit({"dataset": dataset, "rows": rows, "report": str(path)})
    click.echo(report)
    note(f"written to {out or path}")


def _sampled(
    settings: Settings, dataset: str, task: str | None, sample: str, as_json: bool
) -> None:
    from ..orchestrate.build import build_plan
    from ..orchestrate.context import StepContext
    from ..orchestrate.sampled import CAUTION, sampled_rows

    ctx = StepContext(settings, dataset, log=note)
    evaluations = [m.evaluate for m in build_plan(settings).methods]
    rows = sampled_rows(evaluations, ctx, sample, task)
    if not rows:
        raise click.ClickException(
            f"no ranking of data set {dataset!r} is trained; run `llmers run all --dataset "
            f"{dataset}` first"
        )
    if as_json:
        return emit({"dataset": dataset, "sampled": sample, "rows": rows, "note": CAUTION})
    names = list(dict.fromkeys(name for row in rows for name in row))
    shown = [[row.get(name, "") for name in names] for row in rows]
    table(names, [[f"{v:.4f}" if isinstance(v, float) else v for v in row] for row in shown])
    click.echo(f"\n{CAUTION}")
