"""``llmers new recipe|dataset``: one file and one test, ready to run."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

import click

from .common import note, open_settings, settings_options

_RECIPE = '''"""{title}: what is published, in one line.

The LLM adds: ...
Served online: ...
Deviations: none. Its base is the backbone with a start of its own.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    PCA,
    Derive,
    Embed,
    FromVectors,
    ItemText,
    SASRec,
    Train,
    items,
    recipe,
    splits,
)


@recipe(name="{title}", task="sequential", family="{family}")
def {slug}(backbone=SASRec()):
    vectors = Embed(ItemText(), over=items)
    start = FromVectors("item", Derive(PCA(dim=backbone.dim), vectors))
    return Train(backbone, splits("sequential"), init=(start,))
'''
_TEST = '''"""{title}: the contract that every recipe inherits."""

from __future__ import annotations

from llmers_pipelines.testing.contract import RecipeContract


class Test{camel}(RecipeContract):
    recipe = "{slug}"
'''


@click.group()
def new() -> None:
    """Scaffold a recipe or a data set."""


@new.command(epilog="Example: llmers new recipe my_method --family initialization")
@click.argument("name")
@click.option("--family", default="initialization", show_default=True)
@click.option("--into", type=click.Path(path_type=Path), default=Path("."), help="Project root.")
def recipe(name: str, family: str, into: Path) -> None:
    """Write one recipe file and its test; both run as they are."""
    from .. import api
    from ..recipe import FAMILIES, discover

    slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if not slug.isidentifier() or keyword.iskeyword(slug):
        raise click.ClickException(f"{name!r} gives no valid name; use letters, digits and _")
    if slug in api.__all__:
        raise click.ClickException(f"{slug!r} is a name that recipes import; choose another one")
    if family not in FAMILIES:
        raise click.ClickException(f"family {family!r} is none of {', '.join(FAMILIES)}")
    if slug in discover():
        raise click.ClickException(f"a recipe {slug!r} exists already; choose another name")
    package = into / "llmers_pipelines" / "recipes" / family
    if not package.parent.is_dir():
        raise click.ClickException(
            f"{into.resolve()} is not the project root (no llmers_pipelines/recipes); pass --into"
        )
    files = {package / f"{slug}.py": _RECIPE,
             into / "tests" / "contract" / f"test_{slug}.py": _TEST}  # fmt: skip
    for path in files:
        if path.exists():
            raise click.ClickException(f"{path} exists already")
    package.mkdir(exist_ok=True)
    marker = package / "__init__.py"
    if not marker.exists():
        marker.write_text(f'"""Recipes of the family ``{family}``."""\n')
    title = re.sub(r"[^\w .+-]+", " ", name).strip()  # it is written inside of quotes
    values = {"slug": slug, "title": title, "family": family,
              "camel": "".join(p.title() for p in slug.split("_"))}  # fmt: skip
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(**values))
        click.echo(path)
    note(f"next: add [[methods]] recipe = \"{slug}\" to llmers.toml, then "
         f"pytest tests/contract/test_{slug}.py; llmers run {slug}")  # fmt: skip


@new.command(epilog="Example: llmers new dataset shop")
@click.argument("name")
@click.option("--into", type=click.Path(path_type=Path), help="Default: HOME/data/datasets.")
@settings_options
def dataset(name: str, into: Path | None, **flags) -> None:
    """Write an annotated data set description to fill in."""
    from ..data.registry import dataset_template, description_files

    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name):
        raise click.ClickException(f"{name!r} is no name; use letters, digits, - and _")
    settings = open_settings(**flags)
    path = (into or Path(settings.home) / "data" / "datasets") / f"{name}.toml"
    taken = description_files(settings.home).get(name)
    if taken or path.exists():
        raise click.ClickException(f"{taken or path} exists already; choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dataset_template(name))
    click.echo(path)
    note(f"next: fill in the paths and columns, then `llmers datasets check {name}`")
