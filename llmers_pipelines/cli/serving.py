"""``llmers recommend``: from the registered champion."""

from __future__ import annotations

import click

from ..config import Settings
from .common import dataset_option, emit, json_option, open_settings, settings_options, table


@click.command(epilog="Example: llmers recommend --dataset sample --user u0001 -k 5 --explain")
@dataset_option
@click.option("--task", help="Default: the data set's own.")
@click.option("--user", "-u", required=True, help="User id; an unknown one gets the fallback.")
@click.option("-k", default=10, show_default=True, type=click.IntRange(1), help="Items.")
@click.option("--method", help="The newest version of this recommender instead of the champion.")
@click.option("--explain", is_flag=True, help="Nearest history items and shared attributes.")
@click.option("--explore", type=click.FloatRange(0, 1), default=0.0, show_default=True,
              help="Share of the list that is drawn along the model's tree.")
@click.option("--layer", type=click.IntRange(0), default=1, show_default=True,
              help="Of the user's ancestor in the tree: 0 is the root, deeper is nearer.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of what is drawn.")
@click.option("--evidence", is_flag=True, help="The rows that the served model was made from.")
@json_option
@settings_options
def recommend(
    dataset: str | None, task: str | None, user: str, k: int, method: str | None, explain: bool,
    explore: float, layer: int, seed: int, evidence: bool, as_json: bool, **flags,
) -> None:  # fmt: skip
    """Recommend K items to USER from the champion. No language model is loaded."""
    from ..orchestrate.serving import recommend as answer_for
    from ..registry.explore import Explore

    settings = open_settings(**flags)
    if evidence and method:
        raise click.UsageError("--evidence is about the champion; leave --method out")
    if evidence:
        return _evidence(settings, dataset or settings.dataset, task, user, k, as_json)
    try:
        answer = answer_for(settings, dataset or settings.dataset, task, user, k, explain=explain,
                            method=method,
                            explore=Explore(explore, layer, seed) if explore else None)  # fmt: skip
    except LookupError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        return emit(answer)
    click.echo(f"{answer['model']} version {answer['version']}")
    if answer["fallback"]:
        click.secho(f"fallback: {answer['fallback']}", fg="yellow")
    if answer["note"]:
        click.secho(answer["note"], fg="yellow")
    table(("score", "item", "title", *(["explored"] if explore else [])),
          [(i["score"], i["item_id"], i["title"], *(["yes" if i.get("explored") else ""]
            if explore else [])) for i in answer["items"]])  # fmt: skip
    if explain:
        click.echo()
        for item in answer["items"]:
            click.echo(f"{item['title'] or item['item_id']}: {_why(item.get('why') or {})}")


def _evidence(
    settings: Settings, dataset: str, task: str | None, user: str, k: int, as_json: bool
) -> None:
    from ..orchestrate.build import build_plan
    from ..orchestrate.serving import champion_of
    from ..orchestrate.trace import Stored
    from ..orchestrate.trace.recommendation import explain_recommendation
    from ..orchestrate.trace.text import render_recommendation

    stored = Stored(settings, dataset, build_plan(settings))
    task = task or stored.context.description.default_task
    found = explain_recommendation(
        stored, lambda data, of: champion_of(settings, data, of), task, user, k
    )
    if as_json:
        return emit(found.as_json())
    click.echo(render_recommendation(found))


def _why(why: dict) -> str:
    near = ", ".join(str(n.get("title") or n.get("item_id")) for n in why.get("nearest", [])[:3])
    shared = ", ".join(f"{k} {'/'.join(map(str, v))}" for k, v in why.get("shared", {}).items())
    parts = ([f"near {near}"] if near else []) + ([f"shares {shared}"] if shared else [])
    return "; ".join(parts) or "popular with everybody"
