"""``llmers batch``: missing requests as files for a batch interface, and its answers back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from ..config import secret
from .common import (
    dataset_option,
    emit,
    json_option,
    known_dataset,
    note,
    open_settings,
    runnable,
    settings_options,
)

_SHOWN = 10


@click.group()
def batch() -> None:
    """Requests as OpenAI-batch JSONL, for a provider's batch price or another cluster."""


@batch.command(
    epilog="Examples:\n\n\b\n  llmers batch export all -d shop --out requests.jsonl\n"
    "  python -m vllm.entrypoints.openai.run_batch -i requests.jsonl -o answers.jsonl \\\n"
    "    --model DIR --served-model-name NAME --generation-config vllm"
)
@click.argument("what", nargs=-1, required=True)
@dataset_option
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option("--model", help="Name by which the other side knows the model; default: llm.model.")
@json_option
@settings_options
def export(
    what: tuple[str, ...], dataset: str | None, out: Path, model: str | None, as_json: bool, **flags
) -> None:
    """Write all requests of WHAT that no stored answer serves, each once."""
    from ..llm.batch_export import export_batch
    from ..llm.chat_form import Form
    from ..llm.factory import engine_info
    from ..orchestrate.batch import missing
    from ..orchestrate.build import build_plan
    from ..orchestrate.context import StepContext

    settings = open_settings(**flags)
    if settings.engine in ("auto", "template", "recorded"):
        raise click.ClickException(
            f'llm.engine = "{settings.engine}" asks no language model; choose "openai" (an '
            'endpoint is not needed) or "hf" with llm.model, whose identity the answers get'
        )
    dataset = dataset or settings.dataset
    known_dataset(dataset, settings)
    plan = build_plan(settings)
    nodes = runnable(plan, plan.select(what), dataset, settings)
    parts, left = missing(nodes, StepContext(settings, dataset))
    for name, why in left.items():
        note(f"left out: {name}: {why}", fg="yellow")
    done = export_batch(
        parts, out, data=settings.data, info=engine_info(settings),
        model=model or settings.model,
        form=Form(settings.schema_form, settings.token_limit, images=settings.llm_images),
        most_requests=settings.batch_requests, most_bytes=settings.batch_megabytes * 10**6,
    )  # fmt: skip
    for text in done.left_out[:_SHOWN]:
        note(f"left out: {text}", fg="yellow")
    if as_json:
        emit({
            "files": [str(f) for f in done.files], "requests": done.requests,
            "by_asset": done.by_asset, "left_out": {**left}, "rows_left_out": len(done.left_out),
        })  # fmt: skip
    elif not done.requests:
        click.echo("nothing is missing" if not left else "nothing can be exported yet")
    else:
        for name, number in done.by_asset.items():
            click.echo(f"{name}: {number} requests")
        click.echo(f"{done.requests} requests in {', '.join(map(str, done.files))}")
    sys.exit(1 if left and not done.requests else 0)


@batch.command(name="import", epilog="Example: llmers batch import answers.jsonl")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@dataset_option
@click.option("--served-as", multiple=True, help="Another name of the same weights.")
@json_option
@settings_options
def import_(
    files: tuple[Path, ...], dataset: str | None, served_as: tuple[str, ...], as_json: bool, **flags
) -> None:
    """Store the answers in FILES under the keys that were exported; twice changes nothing.

    Reads outputs and errors of OpenAI's batch interface and of vLLM's run_batch. Exits with 1
    where a line cannot be used; such lines are listed in a file of their own. With --dataset it
    also says how many requests of that data set's exports are without an answer still.
    """
    from ..llm.batch_import import import_batch
    from ..llm.ledger import Ledger
    from ..llm.meter import ledger_path

    settings = open_settings(**flags)
    key = secret(settings.api_key_env)
    ledger = Ledger(ledger_path(settings))
    reports = []
    for file in files:
        done = import_batch(
            file, data=settings.data, ledger=ledger, prices=settings.prices, aliases=served_as,
            key=key,
        )
        refused = _quarantine(settings.data, file, done.faults)
        reports.append({
            "file": str(file), "lines": done.lines, "stored": done.stored, "known": done.known,
            "failed": sum(done.failed.values()),
            "why_failed": dict(done.failed.most_common(_SHOWN)),
            "quarantined": len(done.faults), "quarantine": str(refused) if refused else None,
            "tokens_in": done.tokens_in, "tokens_out": done.tokens_out,
            "tokens_cached": done.tokens_cached, "money": round(done.money, 9),
            "without_usage": done.uncounted, "unpriced": list(done.unpriced),
        })  # fmt: skip
        for fault in done.faults[:_SHOWN]:
            note(f"{fault.file}, line {fault.line}: {fault.reason}", fg="red")
    left = _unanswered(settings.data, dataset) if dataset else None
    if as_json:
        emit({"files": reports, **({"unanswered": left} if left is not None else {})})
    else:
        for report in reports:
            _show(report)
        if left is not None:
            click.echo(f"{left} exported requests of data set {dataset!r} are unanswered")
    sys.exit(1 if any(r["quarantined"] for r in reports) else 0)


def _show(report: dict) -> None:
    click.echo(
        f"{report['file']}: {report['stored']} answers stored, {report['known']} known before, "
        f"{report['failed']} failed, {report['quarantined']} lines cannot be used; "
        f"{report['tokens_in'] + report['tokens_out']:,} tokens, money {report['money']:.6g}"
    )
    for why, number in report["why_failed"].items():
        note(f"failed {number} times: {why}", fg="yellow")
    for model in report["unpriced"]:
        note(f'no price of {model!r}: its money counts as 0; add [prices."{model}"] with batch =',
             fg="yellow")  # fmt: skip
    if report["without_usage"]:
        note(
            f"{report['without_usage']} answers tell no usage: counted with their most", fg="yellow"
        )
    if report["quarantine"]:
        note(f"all lines that cannot be used: {report['quarantine']}", fg="red")


def _quarantine(data: Path, file: Path, faults: list) -> Path | None:
    """Write the faults of one file; a second import of it replaces them."""
    from ..llm.identity import file_sha256

    if not faults:
        return None
    path = data / "batches" / "quarantine" / f"{file.stem}-{file_sha256(file)[:8]}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(vars(f), ensure_ascii=False) + "\n" for f in faults))
    return path


def _unanswered(data: Path, dataset: str) -> int:
    """Return how many requests that were exported for ``dataset`` have no stored answer."""
    from ..llm.batch_export import outbox
    from ..store.responses import ResponseStore

    keys = {
        key
        for _, table in outbox(data).segments.read_all(["key", "libraries"])
        for key, beside in zip(*(c.to_pylist() for c in table.columns), strict=True)
        if json.loads(beside)["dataset"] == dataset
    }
    return len(keys) - len(ResponseStore(data / "responses").known(keys))
