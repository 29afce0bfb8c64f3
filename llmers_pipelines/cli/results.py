"""``llmers results``: the document of published results, resumed from stored cells."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from ..config import PROJECT
from .common import emit, json_option, note, open_settings, settings_options

PUBLISHED = PROJECT / "docs" / "results.toml"


@click.command(epilog="Example: llmers results --only amazon_office --out docs/results.md")
@click.option(
    "--experiments",
    type=click.Path(exists=True, path_type=Path),
    default=PUBLISHED,
    help="What to run.",
)
@click.option("--only", multiple=True, help="Data sets to run; the others are written as stored.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/results.md"))
@click.option("--write-only", is_flag=True, help="Write the document from what is stored.")
@json_option
@settings_options
def results(
    experiments: Path, only: tuple[str, ...], out: Path, write_only: bool, as_json: bool, **flags
) -> None:
    """Run the published experiments and write their document and the record of lifts.

    The package's own record of lifts follows its own list of experiments alone, and keeps what a
    run did not reach.
    """
    from ..orchestrate.records import PACKAGED
    from ..orchestrate.results import load_experiments, run_experiment, write_results

    settings = open_settings(**flags)
    listed = load_experiments(experiments)
    failed = []
    for experiment in listed:
        if write_only or (only and experiment.dataset not in only):
            continue
        note(f"{experiment.name}", bold=True)
        failed += run_experiment(
            experiment, settings,
            lambda name, status, seconds: note(f"  {status:12} {name:56} {seconds:8.1f} s"),
        )  # fmt: skip
        for row in failed:
            note(f"  failed: {row['key']}: {row.get('error', row['status'])}", fg="red")
    words = [f"--only {name}" for name in only] + ["--write-only"] * write_only
    if experiments.resolve() != PUBLISHED.resolve():
        words.insert(0, f"--experiments {experiments.name}")
    record = write_results(listed, settings, " ".join(["llmers results", *words]), out)
    if experiments.resolve() == PUBLISHED.resolve() and not failed:
        _keep(PACKAGED / "results.json", record)
    if as_json:
        emit({"out": str(out), "failed": failed, "lifts": record})
    else:
        click.echo(f"written: {out}")
    sys.exit(1 if failed else 0)


def _keep(path: Path, record: dict[str, Any]) -> None:
    """Write the lifts of ``record``; recipes of which nothing is stored here keep theirs."""
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.parent.mkdir(exist_ok=True)
    text = json.dumps({**before, **record}, indent=1, sort_keys=True, default=str)
    path.write_text(text + "\n")
