"""``llmers trace`` and ``llmers sql``: where a feature came from, and any question over all assets."""

from __future__ import annotations

import click

from .common import dataset_option, emit, json_option, open_settings, settings_options, table


@click.command(epilog="Example: llmers trace llm_embeddings/item_summary b0001 --dataset sample")
@click.argument("asset")
@click.argument("row_id", metavar="ID")
@dataset_option
@json_option
@settings_options
def trace(asset: str, row_id: str, dataset: str | None, as_json: bool, **flags) -> None:
    """Walk one row of ASSET back to the catalog and forward to the recommenders that consumed it."""
    from ..orchestrate.build import build_plan
    from ..orchestrate.context import StepContext
    from ..orchestrate.trace import render, trace_row

    settings = open_settings(**flags)
    ctx = StepContext(settings, dataset or settings.dataset)
    found = trace_row(build_plan(settings), asset, row_id, ctx)
    if as_json:
        return emit(found)
    click.echo(render(found))


@click.command(
    epilog='Example: llmers sql "select status, count(*) from item_summaries.item_summary group by 1"'
)
@click.argument("query")
@dataset_option
@click.option("--limit", default=50, show_default=True, help="Rows shown.")
@json_option
@settings_options
def sql(query: str, dataset: str | None, limit: int, as_json: bool, **flags) -> None:
    """Ask DuckDB over every asset (schema.table = asset key) and the store (store.responses)."""
    import duckdb

    from ..orchestrate.sql import connect

    settings = open_settings(**flags)
    connection = connect(settings, dataset or settings.dataset)
    try:
        result = connection.execute(query)
    except duckdb.Error as error:
        raise click.ClickException(str(error)) from error
    columns = [c[0] for c in result.description or []]
    rows = result.fetchall() if as_json else result.fetchmany(limit)
    if as_json:
        return emit([dict(zip(columns, row, strict=True)) for row in rows])
    table(columns, rows)
