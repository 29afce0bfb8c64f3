"""``llmers recommend``: from the registered champion."""

from __future__ import annotations

import click

from .common import dataset_option, emit, json_option, open_settings, settings_options, table


@click.command(epilog="Example: llmers recommend --dataset sample --user u0001 -k 5 --explain")
@dataset_option
@click.option("--task", help="Default: the data set's own.")
@click.option("--user", "-u", required=True, help="User id; an unknown one gets the fallback.")
@click.option("-k", default=10, show_default=True, type=click.IntRange(1), help="Items.")
@click.option("--explain", is_flag=True, help="Nearest history items and shared attributes.")
@json_option
@settings_options
def recommend(
    dataset: str | None, task: str | None, user: str, k: int, explain: bool, as_json: bool, **flags
) -> None:
    """Recommend K items to USER from the champion. No language model is loaded."""
    from ..orchestrate.serving import recommend as answer_for

    settings = open_settings(**flags)
    try:
        answer = answer_for(settings, dataset or settings.dataset, task, user, k, explain=explain)
    except LookupError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        return emit(answer)
    click.echo(f"{answer['model']} version {answer['version']}")
    if answer["fallback"]:
        click.secho(f"fallback: {answer['fallback']}", fg="yellow")
    if answer["note"]:
        click.secho(answer["note"], fg="yellow")
    table(("score", "item", "title"),
          [(i["score"], i["item_id"], i["title"]) for i in answer["items"]])  # fmt: skip
    if explain:
        click.echo()
        for item in answer["items"]:
            click.echo(f"{item['title'] or item['item_id']}: {_why(item.get('why') or {})}")


def _why(why: dict) -> str:
    near = ", ".join(str(n.get("title") or n.get("item_id")) for n in why.get("nearest", [])[:3])
    shared = ", ".join(f"{k} {'/'.join(map(str, v))}" for k, v in why.get("shared", {}).items())
    parts = ([f"near {near}"] if near else []) + ([f"shares {shared}"] if shared else [])
    return "; ".join(parts) or "popular with everybody"
