"""``llmers plan`` and ``llmers status``: what would run, what is stale and why."""

from __future__ import annotations

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


@click.command(epilog="Example: llmers plan kar --dataset ml100k")
@click.argument("what", nargs=-1)
@dataset_option
@json_option
@settings_options
def plan(what: tuple[str, ...], dataset: str | None, as_json: bool, **flags) -> None:
    """Show which assets WHAT (methods, families, groups, keys or 'all') needs; runs nothing."""
    from ..orchestrate.build import build_plan
    from ..orchestrate.context import StepContext
    from ..orchestrate.estimate import estimate

    settings = open_settings(**flags)
    dataset = dataset or settings.dataset
    known_dataset(dataset, settings)
    built = build_plan(settings)
    nodes = runnable(built, built.select(what or ("all",)), dataset, settings)
    rows = estimate(nodes, StepContext(settings, dataset))
    if as_json:
        return emit({"dataset": dataset, "assets": rows})
    table(
        ("asset", "state", "rows", "LLM calls", "answers stored"),
        [(r["key"], r["state"], r["rows"], r["llm_calls"], r["stored"]) for r in rows],
    )
    work = sum(r["state"] != "fresh" for r in rows)
    click.echo(f"\n{len(rows)} assets, at most {work} would do work.")


@click.command(epilog="Example: llmers status --dataset sample")
@dataset_option
@json_option
@settings_options
def status(dataset: str | None, as_json: bool, **flags) -> None:
    """Show what is stale and why, per data set."""
    from ..data.schema import DataError
    from ..orchestrate.applicable import applicable
    from ..orchestrate.build import build_plan
    from ..orchestrate.context import StepContext
    from ..orchestrate.publish import stale_because

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
        for node in nodes:
            why = stale_because(node, ctx)
            have = ctx.manifests.current(name, node.name)
            if have is None and not dataset:
                continue
            rows.append({
                "dataset": name, "key": node.name, "stale": bool(why), "because": why or None,
                "held_by": have.held_by if have else [],
                "data_version": have.data_version if have else None,
                "created": have.created if have else None,
            })  # fmt: skip
    if as_json:
        return emit(rows)
    stale = [r for r in rows if r["stale"] or r["held_by"]]
    if not rows:
        click.echo("Nothing is materialized yet. Try: llmers run all --dataset sample")
    elif not stale:
        click.echo(f"All {len(rows)} materialized assets are fresh.")
    else:
        table(
            ("data set", "asset", "because", "held by"),
            [(r["dataset"], r["key"], r["because"] or "-", ", ".join(r["held_by"]) or "-")
             for r in stale],
        )  # fmt: skip
