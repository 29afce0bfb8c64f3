"""``llmers store`` and ``llmers pin``: the paid-for answers, and versions that stand."""

from __future__ import annotations

import sys
from pathlib import Path

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


@click.group()
def store() -> None:
    """The paid-for answers, vectors and stored versions: see, check, carry, prune."""


@store.command()
@json_option
@settings_options
def stats(as_json: bool, **flags) -> None:
    """Show answers, tokens and money by model, task and prompt; vectors; versions by asset."""
    from ..store.inventory import inventory

    settings = open_settings(**flags)
    document = inventory(settings.data, settings.prices)
    if as_json:
        return emit(document)
    answers = document["answers"]
    click.secho("answers", bold=True)
    click.echo(f"  {answers['rows']:,} rows, {answers['keys']:,} keys, {_size(answers['bytes'])} "
               f"in {answers['segments']} segments, {answers['tokens_in']:,} tokens read, "
               f"{answers['tokens_out']:,} written, {_money(answers['money'])}")  # fmt: skip
    for fault in answers["unreadable"]:
        note(fault, fg="red")
    names = ("model", "task", "prompt_revision", "answers", "tokens_in", "tokens_out")
    table((*names, "size", "money"), [
        (*(g[n] for n in names), _size(g["bytes"]), _money(g["money"])) for g in answers["groups"]
    ])  # fmt: skip
    click.secho("vectors", bold=True)
    table(("encoder", "width", "vectors", "size"), [
        (v["identity"], v["dim"], v["vectors"], _size(v["bytes"])) for v in document["vectors"]
    ])  # fmt: skip
    click.secho("versions", bold=True)
    table(("data set", "asset", "versions", "size"), [
        (v["dataset"], v["asset"], v["versions"], _size(v["bytes"])) for v in document["versions"]
    ])  # fmt: skip
    for name, row in document["folders"].items():
        click.echo(f"{name}: {row['entries']} entries, {_size(row['bytes'])}")
    formats = document["formats"].items()
    click.echo("formats on disk: " + ", ".join(f"{k} {v or 'none'}" for k, v in formats))


@store.command()
@click.option("--quarantine", is_flag=True, help="Keep what is good and move the rest away.")
@json_option
@settings_options
def verify(quarantine: bool, as_json: bool, **flags) -> None:
    """Check everything stored against its checksums; exits non-zero on a fault."""
    from ..llm.ledger import ledger_file
    from ..llm.meter import ledger_path
    from ..registry.manifest import bundle_faults
    from ..store.audit import audit
    from ..store.sqlite_file import Database

    settings = open_settings(**flags)
    registry = Database("registry", settings.mlflow_folder / "mlflow.db",
                        "put a copy of it back; its models stay where they are")  # fmt: skip
    report = audit(settings.data, settings.prices, mend=quarantine,
                   models=lambda: bundle_faults(settings.mlflow_folder / "artifacts"),
                   databases=(ledger_file(ledger_path(settings)), registry))  # fmt: skip
    document = report.document()
    if as_json:
        emit(document)
    else:
        _show(document)
    sys.exit(1 if report.faults else 0)


def _show(document: dict) -> None:
    click.echo("checked: " + (", ".join(f"{n} {k}" for k, n in document["checked"].items()) or "-"))
    for kind, count in document["no_checksum"].items():
        click.echo(f"no checksum (made by an older version): {count} {kind}")
    for fault in document["faults"]:
        click.secho(f"{fault['store']}: {fault['problem']}", fg="red")
        for name, value in (("reads it", ", ".join(fault["assets"])), ("mend", fault["mend"]),
                            ("moved to", fault["aside"])):  # fmt: skip
            if value:
                click.echo(f"  {name}: {value}")
    costs = document["regeneration"]
    if (lost := costs.get("answers")) is not None:
        click.echo(f"asking the lost answers again: {lost['calls']} calls, {lost['tokens_in']:,} "
                   f"tokens read, {lost['tokens_out']:,} written, {_money(lost['money'])}"
                   + (f" ({lost['estimated_rows']} of them estimated by the mean)"
                      if lost["estimated_rows"] else ""))  # fmt: skip
    for asset, row in costs.get("warehouse", {}).items():
        click.echo(f"making {asset} again: {row['seconds']} s last time, no call")
    if "vectors" in costs:
        click.echo(f"texts to encode again: {costs['vectors']['texts_to_encode']}")
    if "cells" in costs:
        click.echo(f"training again: {costs['cells']['training_seconds']} s last time")
    if not document["faults"]:
        click.echo("everything is as it was written, as far as a checksum exists")


@store.command()
@json_option
@settings_options
def compact(as_json: bool, **flags) -> None:
    """Merge small segments; readers and writers may go on meanwhile."""
    from ..store.responses import ResponseStore
    from ..store.vectors import VectorStore

    settings = open_settings(**flags)
    merged = ResponseStore(settings.data / "responses").compact()
    vectors = sum(s.compact() for _, s in VectorStore(settings.data / "vectors").spaces())
    if as_json:
        return emit({"answers": merged, "vectors": vectors})
    click.echo(f"merged {merged} segments of answers and {vectors} of vectors")


@store.command("export", epilog="Example: llmers store export answers.tar --task item_summaries")
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--task", default="", help="Answers of one prompt task alone.")
@click.option("--model", default="", help="Answers of one model alone.")
@click.option("--dataset", "-d", help="Answers that the stored tables of one data set name.")
@json_option
@settings_options
def export_command(dest: Path, task: str, model: str, dataset: str | None, as_json: bool,
                   **flags) -> None:  # fmt: skip
    """Write answers to the folder DEST, or to one file where DEST ends in .tar."""
    from ..store.inventory import keys_of_dataset
    from ..store.responses import ResponseStore
    from ..store.transfer import export_answers

    settings = open_settings(**flags)
    responses = ResponseStore(settings.data / "responses")
    keys = None
    if dataset:
        known_dataset(dataset, settings)
        keys = keys_of_dataset(settings.data, dataset)
    header = export_answers(responses, dest, task=task, model=model, keys=keys,
                            about={"dataset": dataset or ""})  # fmt: skip
    if as_json:
        return emit({"dest": str(dest), **header})
    click.echo(f"{header['rows']:,} answers in {len(header['files'])} parts to {dest}")
    if header["left_out_damaged"]:
        note(f"left out {header['left_out_damaged']} damaged rows; see `llmers store verify`",
             fg="yellow")  # fmt: skip


@store.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@json_option
@settings_options
def import_command(source: Path, as_json: bool, **flags) -> None:
    """Add the answers of an export that the store lacks; exits non-zero where rows are refused."""
    from ..store.responses import ResponseStore
    from ..store.transfer import import_answers

    settings = open_settings(**flags)
    done = import_answers(ResponseStore(settings.data / "responses"), source)
    if as_json:
        emit(done.document())
    else:
        click.echo(f"{done.rows:,} answers: {done.added:,} added, {done.present:,} present, "
                   f"{len(done.conflicts)} conflicting (the stored one stays), "
                   f"{done.refused:,} refused")  # fmt: skip
        for reason in done.reasons:
            note(reason, fg="red")
        for row in done.conflicts[:20]:
            note(f"another answer to {row['key']}: kept that of {row['kept']}, not taken that of "
                 f"{row['not_taken']}", fg="yellow")  # fmt: skip
    sys.exit(1 if done.refused else 0)


@store.command(epilog="Example: llmers store prune --keep 3 --older-than 30, then again with --yes")
@click.option("--keep", default=2, show_default=True, type=click.IntRange(0),
              help="Newest versions of each asset that stay beside the current one.")  # fmt: skip
@click.option("--older-than", default=7.0, show_default=True, type=click.FloatRange(0),
              help="Days: what is younger stays.")  # fmt: skip
@click.option("--aliased", is_flag=True,
              help="Of registered models only those with an alias stay.")  # fmt: skip
@click.option("--answers", is_flag=True, help="Also paid answers that no kept version names.")
@click.option("--yes", is_flag=True, help="Remove; without it, or with --dry-run, only show.")
@click.option("--dry-run", is_flag=True, help="Only show, which is the default.")
@json_option
@settings_options
def prune(keep: int, older_than: float, aliased: bool, answers: bool, yes: bool, dry_run: bool,
          as_json: bool, **flags) -> None:  # fmt: skip
    """Remove versions, cells, vectors and fits that no kept version reaches."""
    from ..orchestrate import prune as pruning

    settings = open_settings(**flags)
    if yes and (running := pruning.live_runs(settings)):
        raise click.ClickException(
            f"{len(running)} runs are under way ({running[0][:8]}, ...); prune when they have ended"
        )
    plan = pruning.plan_pruning(settings, keep=keep, older_than=older_than, answers=answers,
                                aliased=aliased)  # fmt: skip
    done = yes and not dry_run
    if not as_json:
        table(("kind", "what", "size"), [(i.kind, i.name, _size(i.bytes)) for i in plan.items])
        if plan.answers:
            note(f"these {plan.answers['answers']} answers cost {plan.answers['tokens_in']:,} "
                 f"tokens read, {plan.answers['tokens_out']:,} written, "
                 f"{_money(plan.answers['paid'])}", fg="yellow")  # fmt: skip
        click.echo(f"{'removing' if done else 'would remove'} {len(plan.items)} things, "
                   f"{_size(plan.bytes)}" + ("" if done else "; --yes removes them"))  # fmt: skip
    if done:
        pruning.prune(settings, plan)
    if as_json:
        emit({**plan.document(), "removed": done})


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def _money(cost: dict) -> str:
    told = [f"{amount:.4f} {currency}" for currency, amount in sorted(cost["amount"].items())]
    if cost["without_price"]:
        told.append("no price for " + ", ".join(cost["without_price"]))
    return "; ".join(told) or "nothing"


@click.group()
def pin() -> None:
    """Versions that stand until they are moved on purpose."""


@pin.command()
@click.argument("asset")
@dataset_option
@json_option
@settings_options
def move(asset: str, dataset: str | None, as_json: bool, **flags) -> None:
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
    if as_json:
        return emit({"asset": asset, "data_version": done.manifest.data_version})
    note(f"{asset} now stands at {done.manifest.data_version}")
