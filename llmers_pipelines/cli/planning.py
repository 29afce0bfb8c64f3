"""``llmers plan`` and ``llmers status``: what would run, what is stale and why."""

from __future__ import annotations

import sys
import uuid
from typing import Any

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
from .plan_table import pilot_line, show_check, show_plan


@click.command(
    epilog="Examples:\n\n\b\n  llmers plan kar --dataset sample\n"
    "  llmers plan kar -d sample --pilot     (asks and pays 200 rows; the run re-uses them)\n"
    "  llmers plan --check -d sample         (after the run: estimate against actual)"
)
@click.argument("what", nargs=-1)
@dataset_option
@click.option("--pilot", is_flag=True, help="Ask and pay a sample of the missing rows first.")
@click.option("--pilot-rows", type=click.IntRange(2), default=200, show_default=True,
              help="Rows that a pilot asks of each asset.")
@click.option("--yes", is_flag=True, help="Pay the pilot without being asked.")
@click.option("--check", is_flag=True, help="Compare the last plan with the run that followed.")
@json_option
@settings_options
def plan(
    what: tuple[str, ...], dataset: str | None, pilot: bool, pilot_rows: int, yes: bool,
    check: bool, as_json: bool, **flags,
) -> None:  # fmt: skip
    """Show what WHAT (methods, families, groups, keys or 'all') needs and would cost.

    Nothing runs, and nothing is paid unless --pilot says so.
    """
    from ..orchestrate.build import build_plan
    from ..orchestrate.context import StepContext
    from ..orchestrate.estimate import estimate, totals
    from ..orchestrate.plans import compared, store_plan

    settings = open_settings(**flags)
    dataset = dataset or settings.dataset
    known_dataset(dataset, settings)
    ctx = StepContext(settings, dataset, run_id=f"plan-{uuid.uuid4().hex[:12]}")  # its own budget
    if check:
        found = compared(ctx)
        if found is None:
            raise click.ClickException(
                f"no plan of data set {dataset!r} has been followed by a run; first "
                f"`llmers plan WHAT -d {dataset}`, then `llmers run WHAT -d {dataset}`"
            )
        return emit(found) if as_json else show_check(found)
    built = build_plan(settings)
    nodes = runnable(built, built.select(what or ("all",)), dataset, settings)
    paid = _pilots(nodes, ctx, pilot_rows, yes) if pilot else []
    rows = estimate(nodes, ctx)
    document = store_plan(settings, dataset, what or ("all",), rows, totals(rows), paid)
    return emit(document) if as_json else show_plan(document)


def _asks() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty()


def _pilots(nodes: list[Any], ctx: Any, rows: int, yes: bool) -> list[dict[str, Any]]:
    """Ask and pay the pilots of ``nodes`` after a confirmation; return what they took."""
    from ..orchestrate.context import StepError
    from ..orchestrate.pilot import propose, run_pilot
    from ..plan import Generate

    wanted = []
    for node in nodes:
        try:
            proposal = propose(node, ctx, rows) if isinstance(node, Generate) else None
        except StepError as error:
            note(f"no pilot of {node.name}: {error}", fg="yellow")
            continue
        if proposal is not None:
            wanted.append(proposal)
            note(pilot_line(proposal))
    if not wanted:
        note("no pilot is needed: nothing is missing, or the pilot's answers are stored")
        return []
    if not yes:
        if not _asks():
            raise click.ClickException("a pilot is paid for: confirm it with --yes")
        click.confirm("Ask and pay this now?", abort=True, err=True)
    done = []
    for proposal in wanted:
        counts = run_pilot(proposal)
        done.append(counts)
        stopped = f"; {counts['stopped']}" if counts["stopped"] else ""
        note(f"pilot of {proposal.asset}: {counts['llm_calls']:,.0f} calls, "
             f"{counts['tokens_in']:,.0f} + {counts['tokens_out']:,.0f} tokens{stopped}")
    return done


@click.command(epilog="Example: llmers status --dataset sample")
@dataset_option
@json_option
@settings_options
def status(dataset: str | None, as_json: bool, **flags) -> None:
    """Show what is stale and why, and which check or failure holds it, per data set."""
    from ..data.schema import DataError
    from ..orchestrate.applicable import applicable
    from ..orchestrate.build import build_plan
    from ..orchestrate.context import StepContext
    from ..orchestrate.refresh import compare

    settings = open_settings(**flags)
    if dataset:
        known_dataset(dataset, settings)
    built = build_plan(settings)
    names = [dataset] if dataset else StepContext(settings, "").manifests.datasets()
    rows = []
    for name in names or [settings.dataset]:
        ctx = StepContext(settings, name)
        try:
            nodes, _ = applicable(built, list(built.nodes), ctx.description)
        except DataError as error:  # its description was removed; what it made is still stored
            note(str(error), fg="yellow")
            continue
        if not dataset:  # of what was never made nothing is missing
            nodes = [n for n in nodes if ctx.manifests.current(name, n.name)]
        stale = {row.asset: row for row in compare(nodes, ctx).rows}
        for node in nodes:
            row = stale.get(node.name)
            have = ctx.manifests.current(name, node.name)
            rows.append({
                "dataset": name, "key": node.name, "stale": row is not None,
                "because": row.because if row else None,
                "held_by": list(row.held_by) if row else [],
                "data_version": have.data_version if have else None,
                "created": have.created if have else None,
            })  # fmt: skip
    if as_json:
        return emit(rows)
    behind = [r for r in rows if r["stale"]]
    if not rows:
        click.echo("Nothing is materialized yet. Try: llmers run all --dataset sample")
    elif not behind:
        click.echo(f"All {len(rows)} materialized assets are fresh.")
    else:
        table(
            ("data set", "asset", "because", "held by"),
            [(r["dataset"], r["key"], r["because"] or "-", ", ".join(r["held_by"]) or "-")
             for r in behind],
        )  # fmt: skip
