"""``llmers results``: the document of published results, resumed from stored cells."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from ..config import PROJECT
from .common import note, open_settings, settings_options


@click.command(epilog="Example: llmers results --only amazon_office --out docs/results.md")
@click.option(
    "--experiments",
    type=click.Path(exists=True, path_type=Path),
    default=PROJECT / "docs" / "results.toml",
    help="What to run.",
)
@click.option("--only", multiple=True, help="Data sets to run; the others are written as stored.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/results.md"))
@click.option("--write-only", is_flag=True, help="Write the document from what is stored.")
@settings_options
def results(experiments: Path, only: tuple[str, ...], out: Path, write_only: bool, **flags) -> None:
    """Run the published experiments and write their document and the record of lifts."""
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
    record = write_results(listed, settings, "llmers results", out)
    PACKAGED.mkdir(exist_ok=True)
    text = json.dumps(record, indent=1, sort_keys=True, default=str) + "\n"
    (PACKAGED / "results.json").write_text(text)
    click.echo(f"written: {out}")
    sys.exit(1 if failed else 0)
