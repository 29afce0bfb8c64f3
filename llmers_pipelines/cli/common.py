"""Shared options and output: one JSON document on stdout, everything else on stderr."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import click

from ..config import Settings, load_settings

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
dataset_option = click.option("--dataset", "-d", help="Data set; default: llmers.toml.")


def settings_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options by which flags override environment and llmers.toml."""
    for option in (
        click.option("--config", type=click.Path(), help="Another llmers.toml."),
        click.option("--home", type=click.Path(), help="State folder (LLMERS_HOME)."),
        click.option("--data-root", type=click.Path(), help="Local copies of public data sets."),
    ):
        function = option(function)
    return function


def open_settings(**flags: Any) -> Settings:
    """Return the settings in force and set the environment that libraries read."""
    settings = load_settings(**flags)
    settings.apply_environment()
    return settings


def known_dataset(name: str, settings: Settings) -> Any:
    """Return the description of a data set; an unknown name raises with the near ones."""
    from ..data.registry import find_dataset

    return find_dataset(name, settings.home)


def runnable(plan: Any, nodes: list[Any], dataset: str, settings: Settings) -> list[Any]:
    """Return ``nodes`` without the methods whose task the data set lacks, and name these."""
    from ..orchestrate.applicable import applicable

    description = known_dataset(dataset, settings)
    keep, left = applicable(plan, nodes, description)
    for name, reason in left.items():
        note(f"left out: {name}: {reason}", fg="yellow")
    if not keep:
        why = set(left.values()) or {f"its tasks are {', '.join(description.tasks) or 'none'}"}
        raise click.ClickException(
            f"nothing of this can run on data set {dataset!r}: {'; '.join(sorted(why))}"
        )
    return keep


def emit(document: Any) -> None:
    """Write one JSON document; NaN becomes null."""
    click.echo(json.dumps(_clean(document), ensure_ascii=False, default=str))


def _clean(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(k): _clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(v) for v in value]
    if hasattr(value, "item") and not hasattr(value, "__len__"):
        return _clean(value.item())
    return value


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a plain aligned table; numbers to the right."""
    text = [[_cell(v) for v in row] for row in rows]
    widths = [max([len(c), *(len(r[i]) for r in text)]) for i, c in enumerate(columns)]
    right = [bool(rows) and all(isinstance(r[i], (int, float)) for r in rows)
             for i in range(len(columns))]  # fmt: skip

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)
        ).rstrip()

    click.secho(line(columns), bold=True)
    for row in text:
        click.echo(line(row))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}"
    return str(value)


def note(text: str, **style: Any) -> None:
    """Say something to the person, never on stdout."""
    click.secho(text, err=True, **style)
