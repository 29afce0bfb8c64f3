"""``llmers datasets``: list, add, check, show; ``fetch`` is in ``fetching``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .common import emit, json_option, note, open_settings, settings_options, table
from .fetching import fetch, fetchable, show_public


@click.group(invoke_without_command=True, epilog="Example: llmers datasets check sample")
@json_option
@settings_options
@click.pass_context
def datasets(ctx: click.Context, as_json: bool, **flags) -> None:
    """Data sets: what there is, and your own catalog."""
    if ctx.invoked_subcommand:
        return
    from ..data.registry import list_datasets

    settings = open_settings(**flags)
    rows = list_datasets(settings.home, settings.data_root)
    public = fetchable(settings, {r["name"] for r in rows})
    if as_json:
        return emit(rows + public)
    table(
        ("name", "ready", "tasks", "recorded answers", "about"),
        [(r["name"], "no" if r["missing"] else "yes", ", ".join(r["tasks"]),
          ", ".join(r["recorded"]) or "-", r["about"][:70]) for r in rows],
    )  # fmt: skip
    for row in rows:
        if row["missing"]:
            note(f"{row['name']}: {row['missing']}", fg="yellow")
    click.echo("\nCan be fetched (`llmers datasets fetch NAME`, terms with `show NAME`):\n")
    table(
        ("name", "here", "how", "about"),
        [(r["name"], r["here"] or "-", r["how"], r["about"][:70]) for r in public],
    )


@datasets.command(
    epilog="Example:\n\n\b\n  llmers datasets add shop --items catalog.csv "
    "--interactions orders.parquet --map items.item_id=sku --map interactions.user_id=customer"
)
@click.argument("name")
@click.option("--items", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--interactions", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--users", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--map",
    "mapping",
    multiple=True,
    metavar="TABLE.COLUMN=THEIRS",
    help="Which column of a file is ours; the rest is guessed.",
)
@click.option(
    "--set",
    "options",
    multiple=True,
    metavar="TABLE.OPTION=VALUE",
    help="encoding, delimiter, table, time, rating, ...",
)
@click.option("--into", type=click.Path(path_type=Path), help="Default: HOME/data/datasets.")
@click.option("--overwrite", is_flag=True)
@click.option("--dvc", "with_dvc", is_flag=True, help="Also put the files under DVC.")
@json_option
@settings_options
def add(
    name: str, items: Path, interactions: Path, users: Path | None, mapping: tuple[str, ...],
    options: tuple[str, ...], into: Path | None, overwrite: bool, with_dvc: bool, as_json: bool,
    **flags,
) -> None:  # fmt: skip
    """Describe your own catalog: guess the columns, validate every row, write one toml."""
    from ..data.dvc import program, track
    from ..data.registry import add_dataset, description_files

    settings = open_settings(**flags)
    if with_dvc:
        program(settings.dvc)  # a missing program is told before anything is written
    taken = description_files(settings.home).get(name)
    if taken and not overwrite:
        raise click.ClickException(
            f"a data set {name!r} is described in {taken}; choose another name"
        )
    folder = into or Path(settings.home) / "data" / "datasets"
    folder.mkdir(parents=True, exist_ok=True)
    made = add_dataset(
        name, folder, items=items.resolve(), interactions=interactions.resolve(),
        users=users.resolve() if users else None, mapping=_pairs(mapping, "--map"),
        options=_pairs(options, "--set"), overwrite=overwrite,
    )  # fmt: skip
    if made["file"] and with_dvc:
        files = dict.fromkeys(p.resolve() for p in (items, interactions, users) if p)
        made["dvc"] = [str(p) for p in track(list(files), settings.dvc)]
    if as_json:
        emit(made)
    else:
        _report(made["report"])
    if not made["file"]:
        note(f"nothing was written: mend the errors of {name} and add it again", fg="red")
        sys.exit(1)
    for path in [made["file"], *made.get("dvc", [])]:
        note(f"written: {path}")
    if name in description_files(settings.home):
        note(f"next: llmers run all --dataset {name}")
    else:
        note(f"next: data sets are looked up in {Path(settings.home) / 'data' / 'datasets'}; put "
             f"{name}.toml there, then: llmers run all --dataset {name}")


def _pairs(given: tuple[str, ...], option: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for text in given:
        key, mark, value = text.partition("=")
        if not mark:
            raise click.BadParameter(f"{text!r}: write KEY=VALUE", param_hint=option)
        out[key.strip()] = value.strip()
    return out


@datasets.command()
@click.argument("name")
@json_option
@settings_options
def check(name: str, as_json: bool, **flags) -> None:
    """Validate every row of NAME; exits non-zero where nothing can be used."""
    from ..data.registry import check_dataset, find_dataset

    settings = open_settings(**flags)
    report = check_dataset(find_dataset(name, settings.home), settings.data_root)
    if as_json:
        emit(report)
    else:
        _report(report)
    sys.exit(0 if report.get("ok", True) else 1)


@datasets.command()
@click.argument("name")
@json_option
@settings_options
def show(name: str, as_json: bool, **flags) -> None:
    """Show counts, density, time range, text coverage, head and tail; or a set to be fetched."""
    from ..data.registry import description_files, find_dataset, show_dataset

    settings = open_settings(**flags)
    if name not in description_files(settings.home):
        public = show_public(name, settings)
        if public:
            return emit(public) if as_json else _report(public)
    facts = show_dataset(find_dataset(name, settings.home), settings.data_root)
    if as_json:
        return emit(facts)
    _report(facts)


def _report(report: dict[str, Any], depth: int = 0) -> None:
    for key, value in report.items():
        pad = "  " * depth
        if isinstance(value, dict) and value:
            click.secho(f"{pad}{key}", bold=depth == 0)
            _report(value, depth + 1)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            click.secho(f"{pad}{key}", bold=depth == 0)
            columns = list(value[0])
            table(columns, [[str(row.get(c, ""))[:60] for c in columns] for row in value[:20]])
        else:
            click.echo(f"{pad}{key}: {value}")


datasets.add_command(fetch)
