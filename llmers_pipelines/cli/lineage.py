"""``llmers trace`` and ``llmers sql``: where a feature came from, and questions over all assets."""

from __future__ import annotations

import click

from .common import (
    dataset_option,
    emit,
    json_option,
    known_dataset,
    open_settings,
    settings_options,
    table,
)


@click.command(epilog="Example: llmers trace llm_embeddings/item_summary b0001 --dataset sample")
@click.argument("asset")
@click.argument("row_id", metavar="ID")
@dataset_option
@json_option
@settings_options
def trace(asset: str, row_id: str, dataset: str | None, as_json: bool, **flags) -> None:
    """Walk one row of ASSET back to the catalog and forward to what consumed it."""
    from ..orchestrate.build import build_plan
    from ..orchestrate.context import StepContext
    from ..orchestrate.trace import render, trace_row

    settings = open_settings(**flags)
    ctx = StepContext(settings, dataset or settings.dataset)
    known_dataset(ctx.dataset, settings)
    found = trace_row(build_plan(settings), asset, row_id, ctx)
    if as_json:
        return emit(found)
    click.echo(render(found))


@click.command(
    epilog="Example: llmers sql "
    '"select status, count(*) from item_summaries.item_summary group by 1"'
)
@click.argument("query")
@dataset_option
@click.option("--limit", default=50, show_default=True, help="Rows shown.")
@json_option
@settings_options
def sql(query: str, dataset: str | None, limit: int, as_json: bool, **flags) -> None:
    """Ask DuckDB over every asset (schema.table = asset key) and the store (store.responses)."""
    import duckdb

    from ..orchestrate.sql import ask, connect

    settings = open_settings(**flags)
    dataset = dataset or settings.dataset
    known_dataset(dataset, settings)
    try:
        columns, rows = ask(connect(settings, dataset), query, None if as_json else limit)
    except (duckdb.Error, ValueError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        return emit([dict(zip(columns, row, strict=True)) for row in rows])
    table(columns, rows)
