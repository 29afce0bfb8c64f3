"""``llmers recipes``: what there is, with proofs read from records."""

from __future__ import annotations

from typing import Any

import click

from .common import emit, json_option, open_settings, settings_options, table


@click.group(invoke_without_command=True, epilog="Example: llmers recipes show kar")
@json_option
@settings_options
@click.pass_context
def recipes(ctx: click.Context, as_json: bool, **flags) -> None:
    """List the methods that are built in or plugged in."""
    if ctx.invoked_subcommand:
        return
    from ..orchestrate.cards import cards

    rows = cards(open_settings(**flags))
    if as_json:
        return emit(rows)
    table(
        ("slug", "name", "family", "task", "backbones", "LLM outputs", "proofs"),
        [
            (r["slug"], r["name"], r["family"], r["task"], _backbones(r),
             ", ".join(r["llm_outputs"]) or "-",
             " ".join(k for k, v in r["proofs"].items() if v) or "-")
            for r in rows
        ],
    )  # fmt: skip


@recipes.command()
@click.argument("name")
@json_option
@settings_options
def show(name: str, as_json: bool, **flags) -> None:
    """Show one recipe: what the LLM adds, what is served, its settings and its assets."""
    from ..orchestrate.cards import card

    found = card(name, open_settings(**flags))
    if as_json:
        return emit(found)
    click.secho(f"{found['name']} ({found['slug']})", bold=True)
    click.echo(found["doc"] + "\n")
    found = {**found, "backbones": _backbones(found)}
    for label in ("family", "paper", "task", "backbones", "llm_outputs", "settings", "proofs"):
        click.echo(f"{label:12} {found[label]}")
    click.echo("\nassets")
    for asset in found["assets"]:
        click.echo(f"  {asset}")


def _backbones(card: dict[str, Any]) -> str:
    """Return the backbones of a card in words, each with the settings that it needs there."""
    needed = card["backbone_settings"]
    told = [
        slug + (f" ({', '.join(f'{k} = {v}' for k, v in needed[slug].items())})"
                if slug in needed else "")
        for slug in card["backbones"]
    ]  # fmt: skip
    return ", ".join(told) or "none to choose"
