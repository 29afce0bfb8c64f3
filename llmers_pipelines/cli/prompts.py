"""``llmers prompts``: what is asked, one row's question and answer, and two revisions compared."""

from __future__ import annotations

from typing import Any

import click

from .common import (
    dataset_option,
    emit,
    json_option,
    known_dataset,
    open_settings,
    settings_options,
    table,
)

engine_option = click.option(
    "--engine", default="configured", show_default=True,
    help="configured, auto, template, recorded, hf, or another engine of llmers.toml.",
)  # fmt: skip


@click.group(
    invoke_without_command=True,
    epilog="Example: llmers prompts preview item_summary --dataset sample --id b0001",
)
@json_option
@settings_options
@click.pass_context
def prompts(ctx: click.Context, as_json: bool, **flags) -> None:
    """List the prompt tasks: revision, what they produce, which assets ask and read them."""
    if ctx.invoked_subcommand:
        return
    from ..orchestrate.build import build_plan
    from ..orchestrate.prompts import list_tasks

    rows = list_tasks(build_plan(open_settings(**flags)))
    if as_json:
        return emit(rows)
    table(
        ("task", "revision", "asset", "answer", "read by"),
        [(r["name"], r["prompt_revision"].removeprefix(f"{r['name']}-"),
          r["asset"] or f"{r['produces']}/ (no method asks it)",
          ", ".join(r["schema"] or ["text"]), ", ".join(r["read_by"]) or "-") for r in rows],
    )  # fmt: skip


def _open(task: str, dataset: str | None, engine: str, flags: dict[str, Any]) -> tuple[Any, ...]:
    """Return (plan, node, context) of a task on a data set."""
    from ..orchestrate.build import build_plan
    from ..orchestrate.context import StepContext
    from ..orchestrate.prompts import choose

    settings = open_settings(engine=None if engine == "configured" else engine, **flags)
    ctx = StepContext(settings, dataset or settings.dataset)
    known_dataset(ctx.dataset, settings)
    plan = build_plan(settings)
    return plan, choose(plan, task, ctx), ctx


@prompts.command()
@click.argument("task")
@dataset_option
@click.option("--id", "row_id", required=True, help="Item or user id.")
@engine_option
@click.option("--ask", is_flag=True, help="Ask the engine where no answer is stored; it is kept.")
@json_option
@settings_options
def preview(
    task: str, dataset: str | None, row_id: str, engine: str, ask: bool, as_json: bool, **flags
) -> None:
    """Show the messages that TASK (or an asset key) sends for one row, and what became of them.

    Nothing is asked without --ask. Answers come from the store, the recorded answers or the
    template.
    """
    from ..orchestrate.prompts import preview as look

    _, node, ctx = _open(task, dataset, engine, flags)
    found = look(node, row_id, ctx, ask=ask)
    if as_json:
        return emit(found)
    _show(found, asked=ask)


def _show(found: dict[str, Any], *, asked: bool) -> None:
    def head(text: str) -> None:
        click.secho(f"\n{text}", bold=True)

    click.secho(f"{found['asset']}, row {found['id']} of {found['dataset']}", bold=True)
    click.echo(f"revision {found['prompt_revision']}, engine {found['engine']}: {found['model']}")
    for text in filter(None, (found.get("note"), ", ".join(found["flags"]))):
        click.echo(text)
    if found["unaskable"]:
        click.echo(f"nothing is asked: {found['unaskable']}")
        return
    for message in found["messages"]:
        head(message["role"])
        click.echo(message["content"])
    head("size")
    click.echo(f"{found['tokens']['count']} tokens ({found['tokens']['how']}), "
               f"answer of at most {found['max_tokens']}")  # fmt: skip
    click.echo("left out: " + ("; ".join(found["truncated"]) or "nothing"))
    cells = [
        f"{c['column']} spells {c['text']!r}" for c in found["neutralized"]["in the row's cells"]
    ]
    click.echo("special tokens in the row: " + ("; ".join(cells) or "none"))
    broken = found["neutralized"]["in the rendered prompt"]
    click.echo("broken before sending: " + (", ".join(map(repr, broken)) or "none"))
    head("schema")
    click.echo(found["schema"] if found["schema"] else "free text")
    if not found["answers"]:
        head("answer")
        why = "the engine gave none" if asked else "none stored; --ask asks the engine"
        why = "no recorded answer" if found["engine"] == "recorded" else why
        click.echo(why)
    for number, answer in enumerate(found["answers"]):
        head("answer" if number == 0 else "answer to the repair")
        click.echo(f"from {answer['from']}; valid {answer['valid']}, grounded {answer['grounded']}")
        click.echo(answer["raw"])
        if answer["refused"]:
            click.secho(f"refused: {answer['refused']}", fg="yellow")
        else:
            click.echo(f"accepted as: {answer['value']}")
        if answer.get("repair"):
            last = answer["repair"] if isinstance(answer["repair"], str) else (
                answer["repair"][-1]["content"])  # fmt: skip
            click.echo(f"repair message: {last}")


@prompts.command()
@click.argument("task")
@dataset_option
@click.option("--from", "old", default="", help="Revision; default: the newest kept other one.")
@click.option("--to", "new", default="", help="Revision; default: the present one.")
@click.option("--sample", default=100, show_default=True, help="Rows.")
@click.option("--seed", default=0, show_default=True, help="Of the sample and the intervals.")
@click.option("--examples", default=3, show_default=True, help="Most different answers shown.")
@click.option("--ask", is_flag=True, help="Ask what the present revision lacks; it is kept.")
@engine_option
@json_option
@settings_options
def diff(
    task: str, dataset: str | None, old: str, new: str, sample: int, seed: int, examples: int,
    ask: bool, engine: str, as_json: bool, **flags,
) -> None:  # fmt: skip
    """Compare the answers of two revisions of TASK on a seeded sample of rows."""
    from ..orchestrate.prompt_diff import diff as compare

    plan, node, ctx = _open(task, dataset, engine, flags)
    found = compare(plan, node, ctx, old=old, new=new, sample=sample, seed=seed, ask=ask,
                    top=examples)  # fmt: skip
    if as_json:
        return emit(found)
    click.secho(
        f"{found['asset']} on {found['dataset']}: {found['rows']} rows, seed {seed}", bold=True
    )
    for side in ("from", "to"):
        told = found[side]
        click.echo(f"{side:5}{told['revision']}: {told['answered']} answers of {told['model']}, "
                   f"{told['source']}")  # fmt: skip
    click.echo("validity and grounding are judged by the present parser and rule; tokens: "
               f"{found['tokens']}\n")  # fmt: skip
    table(
        ("figure", "from", "95 %", "to", "95 %", "difference", "95 %"),
        [[r["figure"], *(v for s in ("from", "to", "difference")
          for v in (r[s], _range(r[f"{s}_low"], r[f"{s}_high"])))] for r in found["figures"]],
    )  # fmt: skip
    for row in found["figures"]:
        if row.get("from_quantiles"):
            click.echo(f"{row['figure']} at 10/50/90 %: {_numbers(row['from_quantiles'])} -> "
                       f"{_numbers(row['to_quantiles'])}")  # fmt: skip
    if found["agreement"]:
        click.echo()
        table(("field", "agreement", "mean", "95 %", "rows"),
              [(r["field"], r["measure"], r["mean"], _range(r["low"], r["high"]), r["rows"])
               for r in found["agreement"]])  # fmt: skip
    for side, counts in found["refusals"].items():
        for reason, count in counts.items():
            click.echo(f"refused ({side}) {count}: {reason}")
    for row in found["most_different"]:
        click.secho(f"\n{row['id']} (word F1 {row['word_f1']:.2f}) {row['why']}", bold=True)
        click.echo(
            f"from [{row['from_status']}]: {row['from']}\nto [{row['to_status']}]: {row['to']}"
        )
    if found["prompt"]:
        click.secho(f"\nprompt of {found['prompt']['id']}", bold=True)
        click.echo("\n".join(found["prompt"]["diff"]) or "equal")


def _range(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def _numbers(quantiles: dict[str, float]) -> str:
    return "/".join(f"{v:g}" for v in quantiles.values()) or "-"


@prompts.command()
@click.argument("task")
@dataset_option
@click.option("--check", "names", multiple=True, help="Only this check; may be repeated.")
@click.option("--examples", default=3, show_default=True, help="Findings shown per check.")
@json_option
@settings_options
def safety(
    task: str, dataset: str | None, names: tuple[str, ...], examples: int, as_json: bool, **flags
) -> None:
    """Check the published texts of TASK: protected attributes, personal data, refusals and more.

    Settings come from [safety] in llmers.toml; nothing is asked and nothing is changed.
    """
    from ..orchestrate.prompts import check_stored

    _, node, ctx = _open(task, dataset, "configured", flags)
    rows = check_stored(node, ctx, names=names, examples=examples)
    if as_json:
        return emit(rows)
    table(
        ("check", "texts", "with findings", "share", "limit", "within", "kinds"),
        [(r["check"], r["texts"], r["texts with findings"], r["share"], r["limit"], r["passed"],
          r["kinds"]) for r in rows],
    )  # fmt: skip
    for row in rows:
        for told in row["examples"]:
            click.echo(f"{row['check']} in {told['id']}: {told['kind']}: {told['evidence']}")


@prompts.command()
@dataset_option
@click.option("--count", default=200, show_default=True, help="Questions of each kind at most.")
@click.option("--seed", default=0, show_default=True, help="Of the draw.")
@click.option("--ask", is_flag=True, help="Ask what is not stored; without it the last result.")
@json_option
@settings_options
def memory(
    dataset: str | None, count: int, seed: int, ask: bool, as_json: bool, **flags
) -> None:
    """Probe whether the configured model knows the data set by heart: ids, users, next rows."""
    from ..orchestrate.build import build_plan
    from ..orchestrate.context import StepContext
    from ..orchestrate.memorised import stored
    from ..orchestrate.memory_probe import probe

    settings = open_settings(**flags)
    ctx = StepContext(settings, dataset or settings.dataset)
    known_dataset(ctx.dataset, settings)
    plan = build_plan(settings)
    found = probe(plan, ctx, count=count, seed=seed) if ask else stored(ctx)
    if as_json:
        return emit(found)
    if found is None:
        return click.echo("not probed yet; --ask asks the model")
    click.secho(f"{found['dataset']}, {found['model']}: {found['llm_calls']} questions asked, "
                f"{found['stored']} stored", bold=True)  # fmt: skip
    table(
        ("what", "asked", "matches", "share", "95 %", "by chance", "known"),
        [(r["what"], r["asked"], r["matches"], f"{r['share']:.3f}", _range(r["low"], r["high"]),
          f"{r['null']:.4f}", "yes" if r["known"] else "no") for r in found["kinds"]],
    )  # fmt: skip
    if found["known"]:
        click.secho("The model knows records of this data set: back a lift up on another one. "
                    "Evaluations of methods that read its answers are marked as memorised.",
                    fg="yellow")  # fmt: skip
