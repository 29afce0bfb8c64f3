"""``llmers tune``: a search for settings by validation."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

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


@click.command(
    epilog="Examples:\n\n\b\n  llmers tune sasrec --dataset sample --trials 10\n"
    "  llmers tune llm2x --backbone sasrec -d amazon_office --trials 30 --with-base\n"
    '  llmers tune lightgcn --set "fit.lr=1e-4..1e-2:log" --set dim=32,64 --seconds 600\n'
    '  llmers tune llm_esr --set "neighbour_distillation.weight=0.01..1:log"\n\n'
    "A call that stopped goes on where it was: give it again. See docs/tuning.md."
)
@click.argument("recipe")
@dataset_option
@click.option("--backbone", default="", help="Backbone of the method; default: llmers.toml's.")
@click.option("--trials", default=20, show_default=True, help="Trials of each arm, in all calls.")
@click.option("--seconds", type=float, default=0.0, help="Stop this call after so many seconds.")
@click.option(
    "--set", "ranges", multiple=True, metavar="NAME=RANGE",
    help="A range (1e-4..1e-2:log), values (32,64), or one value for all trials.",
)  # fmt: skip
@click.option(
    "--space", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A toml of ranges in place of the defaults.",
)  # fmt: skip
@click.option("--with-base", is_flag=True, help="Search the backbone alone too, on equal terms.")
@click.option(
    "--pruner", type=click.Choice(["median", "hyperband", "none"]), default="median",
    show_default=True, help="What ends trials that fall behind.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Of the search; trainings have 0.")
@click.option("--device", help="cpu, cuda or auto.")
@json_option
@settings_options
def tune(
    recipe: str, dataset: str | None, backbone: str, trials: int, seconds: float,
    ranges: tuple[str, ...], space: Path | None, with_base: bool, pruner: str, seed: int,
    device: str | None, as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Search settings of RECIPE on one data set, by validation; the test split is not read."""
    from ..orchestrate.context import StepContext
    from ..orchestrate.tuning.search import Budget, Search, document, make_inputs
    from ..orchestrate.tuning.space import arms_of, read_set, read_space

    settings = open_settings(**flags)
    dataset = dataset or settings.dataset
    known_dataset(dataset, settings)
    budget = Budget(trials, seconds)
    arms = arms_of(
        settings, recipe, backbone, with_base=with_base, asked=read_set(ranges),
        instead=read_space(space) if space else None,
    )  # fmt: skip
    ctx = StepContext(settings, dataset, log=note, limits={"device": device} if device else {})
    make_inputs(arms, ctx)
    for arm in arms:
        told = ", ".join(f"{n} {d}" for n, d in arm.space.items())
        note(f"{arm.name}: {arm.node.slug} on {dataset}: {told}")
    search = Search(arms, ctx, budget, seed, pruner, note)
    started = time.perf_counter()
    found, done = search.run()
    report = document(found, search, done=done, seconds=time.perf_counter() - started)
    if as_json:
        return emit(report)
    _show(found, report)


def _show(found: list[Any], report: Any) -> None:
    columns = ("arm", "method", "trials", "pruned", "failed", "default", "best", "gain")
    rows = [{"arm": o.arm, "method": o.name, **o.summary()} for o in found]
    click.secho(f"validation {report['metric']} on {report['dataset']}", bold=True)
    table(columns, [[r[c] for c in columns] for r in rows])
    for one in found:
        click.echo()
        click.secho(f"{one.arm}: {one.name}", bold=True)
        if one.best is None:
            click.echo("no trial has ended yet")
            continue
        curve = ", ".join(f"{n}: {v:.4f}" for n, v in one.curve().items())
        click.echo(f"best after so many trials: {curve}\n")
        table(("setting", "before", "best", "range"), [
            [n, _plain(before), _plain(best), told] for n, before, best, told in one.changes()
        ])  # fmt: skip
    for one in found:
        if one.best is not None and one.best.number:
            click.echo(f"\nTo keep the best of {one.name}, write into llmers.toml:\n\n{one.toml()}")
    click.echo(
        "\nThe best of several trials flatters itself, the more the larger their number: `llmers "
        "run` with several seeds tells what it is worth on test."
    )
    if not report["complete"]:
        note("stopped before all trials were made; the same command goes on", fg="yellow")
    note(f"MLflow run {found[0].mlflow_run}, {report['seconds']:.0f} s")


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
