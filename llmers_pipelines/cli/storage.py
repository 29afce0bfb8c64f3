"""``llmers store`` and ``llmers pin``: the paid-for answers, and versions that stand."""

from __future__ import annotations

import sys

import click

from .common import dataset_option, emit, json_option, note, open_settings, settings_options, table


@click.group()
def store() -> None:
    """The response and vector stores: what was paid for."""


@store.command()
@json_option
@settings_options
def stats(as_json: bool, **flags) -> None:
    """Show how many answers and vectors are stored, by model."""
    from ..store.responses import ResponseStore
    from ..store.vectors import VectorStore

    settings = open_settings(**flags)
    document = {
        "responses": ResponseStore(settings.data / "responses").stats(),
        "vectors": VectorStore(settings.data / "vectors").stats(),
    }
    if as_json:
        return emit(document)
    for name, rows in document.items():
        click.secho(name, bold=True)
        for row in rows if isinstance(rows, list) else [rows]:
            for key, value in row.items():
                click.echo(f"  {key:16} {value}")


@store.command()
@json_option
@settings_options
def verify(as_json: bool, **flags) -> None:
    """Check every stored row against its checksum; exits non-zero on a fault."""
    from ..store.responses import ResponseStore
    from ..store.vectors import VectorStore

    settings = open_settings(**flags)
    faults = {
        "responses": [str(f) for f in ResponseStore(settings.data / "responses").verify()],
        "vectors": [str(f) for f in VectorStore(settings.data / "vectors").verify()],
    }
    if as_json:
        emit(faults)
    else:
        table(("store", "fault"), [(k, f) for k, rows in faults.items() for f in rows])
        if not any(faults.values()):
            click.echo("all rows match their checksums")
    sys.exit(1 if any(faults.values()) else 0)


@store.command()
@settings_options
def compact(**flags) -> None:
    """Merge small segments; readers and writers may go on meanwhile."""
    from ..store.responses import ResponseStore
    from ..store.vectors import VectorStore

    settings = open_settings(**flags)
    merged = ResponseStore(settings.data / "responses").compact()
    vectors = sum(s.compact() for _, s in VectorStore(settings.data / "vectors").spaces())
    click.echo(f"merged {merged} segments of answers and {vectors} of vectors")


@click.group()
def pin() -> None:
    """Versions that stand until they are moved on purpose."""


@pin.command()
@click.argument("asset")
@dataset_option
@settings_options
def move(asset: str, dataset: str | None, **flags) -> None:
    """Move the pin ASSET (features/pin__...) to the current version of what it pins."""
    from ..orchestrate.build import build_plan
    from ..orchestrate.context import StepContext
    from ..orchestrate.publish import materialize
    from ..plan import Pin

    settings = open_settings(**flags)
    node = build_plan(settings).node(asset)
    if not isinstance(node, Pin):
        raise click.ClickException(f"{asset} is not a pin")
    done = materialize(node, StepContext(settings, dataset or settings.dataset), force=True)
    note(f"{asset} now stands at {done.manifest.data_version}")
