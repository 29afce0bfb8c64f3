"""``llmers trace``, ``diff``, ``lineage`` and ``sql``: where a value came from, what changed."""

from __future__ import annotations

import socket

import click

from .common import (
    dataset_option,
    emit,
    json_option,
    known_dataset,
    note,
    open_settings,
    settings_options,
    table,
)


@click.command(epilog="Example: llmers trace llm_embeddings/item_summary b0001 --dataset sample")
@click.argument("asset")
@click.argument("row_id", metavar="ID")
@click.option("--entity", type=click.Choice(["item", "user"]),
              help="Whose id it is, where an asset knows items and users.")  # fmt: skip
@click.option("--version", default="", help="A stored data version; default: the newest.")
@dataset_option
@json_option
@settings_options
def trace(
    asset: str, row_id: str, entity: str | None, version: str, dataset: str | None, as_json: bool,
    **flags,
) -> None:  # fmt: skip
    """Walk one row of ASSET back to the catalog and on to the models that use it."""
    from ..orchestrate.build import build_plan
    from ..orchestrate.trace import Stored, trace_row
    from ..orchestrate.trace.row import registry_aliases
    from ..orchestrate.trace.text import render

    settings = open_settings(**flags)
    dataset = dataset or settings.dataset
    known_dataset(dataset, settings)
    stored = Stored(settings, dataset, build_plan(settings))
    way = trace_row(stored, asset, row_id, entity=entity or "", version=version,
                    aliases=registry_aliases(settings))  # fmt: skip
    if as_json:
        return emit(way.as_json())
    click.echo(render(way))


@click.command(epilog="Example: llmers diff item_summaries/item_summary --from previous")
@click.argument("asset")
@click.option("--from", "before", default="previous", show_default=True, metavar="V1",
              help="A data version or how it begins, current, or previous.")  # fmt: skip
@click.option("--to", "after", default="current", show_default=True, metavar="V2",
              help="The same, of the version that it is compared with.")  # fmt: skip
@dataset_option
@json_option
@settings_options
def diff(
    asset: str, before: str, after: str, dataset: str | None, as_json: bool, **flags
) -> None:
    """Compare two stored versions of ASSET: rows, vectors, metrics, weights."""
    from ..orchestrate.build import build_plan
    from ..orchestrate.diff import diff_versions
    from ..orchestrate.diff.text import render
    from ..orchestrate.trace import Stored

    settings = open_settings(**flags)
    dataset = dataset or settings.dataset
    known_dataset(dataset, settings)
    found = diff_versions(Stored(settings, dataset, build_plan(settings)), asset, before, after)
    if as_json:
        return emit(found.as_json())
    click.echo(render(found))


@click.command(epilog="Example: llmers lineage --port 3001")
@click.option("--port", default=3001, show_default=True, help="Of the pages, on 127.0.0.1.")
@settings_options
def lineage(port: int, **flags) -> None:
    """Serve the lineage pages on loopback; Ctrl-C ends them."""
    from ..web.server import serve

    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise click.ClickException(f"port {port} is taken (by `llmers up`?); pass --port")
    note(f"Lineage  http://127.0.0.1:{port}")
    serve(lambda: open_settings(**flags), port)


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
