"""``llmers datasets fetch`` and what the other commands tell about sets that can be fetched."""

from __future__ import annotations

import sys
from typing import Any

import click

from ..config import Settings
from .common import emit, json_option, note, open_settings, settings_options, table


@click.command(
    epilog="Examples:\n\n\b\n  llmers datasets fetch ml-100k\n"
    "  llmers datasets fetch amazon-2023 --category All_Beauty --accept-terms"
)
@click.argument("name")
@click.option("--category", default="", help="Of Amazon and Goodreads: which part.")
@click.option("--accept-terms", is_flag=True, help="I have read the terms and accept them.")
@click.option("--with-reviews", is_flag=True, help="Keep the texts of reviews, in a table apart.")
@click.option("--again", is_flag=True, help="Read the raw files again.")
@json_option
@settings_options
def fetch(
    name: str, category: str, accept_terms: bool, with_reviews: bool, again: bool, as_json: bool,
    **flags,
) -> None:  # fmt: skip
    """Get a public data set: a local copy first, then its official address; then parse it.

    The terms are shown before a download, and must be accepted at the prompt or with
    --accept-terms. A download that broke off goes on where it stopped.
    """
    from ..data.public.fetch import fetch_public

    settings = open_settings(**flags)
    report = fetch_public(
        name, home=settings.home, data_root=settings.data_root, category=category,
        reviews=with_reviews, again=again,
        agree=lambda source: _agree(source, accepted=accept_terms),
    )  # fmt: skip
    for warning in report["warnings"]:
        note(f"warning: {warning}", fg="yellow")
    if as_json:
        return emit(report)
    click.echo(f"{report['name']}: {report['status']} in {report['folder']}")
    table(
        ("count", "found", "published"),
        [(k, v["found"], v["published"] or "-") for k, v in report["counts"].items()],
    )
    if report["quarantined"]:
        click.echo(f"\nquarantine ({report['quarantine']}):")
        table(("fault", "rows"), list(report["quarantined"].items()))
    note(f"described in {report['description']}")
    note(f"next: {report['next']}; llmers run all --dataset {report['name']}")


def _agree(source: Any, *, accepted: bool) -> bool:
    """Show the terms; return whether they are accepted. Without a terminal only the flag counts."""
    note(f"{source.title}\n  terms: {source.terms}\n  read them: {source.terms_url}")
    note(f"  cite: {source.citation}")
    note(f"  from: {', '.join(f.urls[0] for f in source.files if f.urls)}")
    if accepted:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return click.confirm("Do you accept these terms?", default=False, err=True)


def fetchable(settings: Settings, taken: set[str]) -> list[dict[str, Any]]:
    """Return one dict per public set (or family) that is not described in this home yet."""
    from ..data.public.describe import public_sets
    from ..data.public.fetch import state_of

    rows = []
    for source in public_sets().values():
        if source.name in taken:
            continue
        here = state_of(source, settings.home, settings.data_root)
        how = "by hand" if source.manual else "download"
        rows.append(
            {"name": source.name, "about": source.title, "tasks": [], "recorded": [],
             "terms": source.terms, "fetch": True, "here": here, "how": how,
             "categories": list(source.categories),
             "missing": f"not fetched; run `llmers datasets fetch {source.name}`"}
        )  # fmt: skip
    return rows


def show_public(name: str, settings: Settings) -> dict[str, Any] | None:
    """Return what is known about a public set before it is fetched, ``None`` if there is none."""
    from ..data.public.describe import find_public
    from ..data.public.fetch import folder_of, state_of

    source = find_public(name)
    if source is None:
        return None
    raw = folder_of(source, settings.home, settings.data_root) / "raw"
    facts: dict[str, Any] = {
        "name": source.name, "title": source.title, "about": source.about,
        "terms": source.terms, "terms_url": source.terms_url, "citation": source.citation,
        "page": source.page, "here": state_of(source, settings.home, settings.data_root) or "no",
    }  # fmt: skip
    if source.manual:
        names = " and ".join(f.name for f in source.files)
        facts["get"] = f"{source.manual.replace('{files}', names)} Put into {raw}"
    facts["files"] = {
        f.name: {"url": ", ".join(f.urls) or "by hand", "bytes": f.size or "not known",
                 "checksum": " ".join(f.checksum()) + ("" if f.published else _mark(f))}
        for f in source.files
    }  # fmt: skip
    facts["counts"] = {k: c.text for k, c in source.counts.items()}
    if source.categories:
        facts["categories"] = ", ".join(source.categories)
    facts["known_defects"] = "; ".join(source.defects)
    return facts


def _mark(file: Any) -> str:
    if file.checksum_url:
        return f"published at {file.checksum_url}"
    return " (recorded by others)" if any(file.checksum()) else "none published"
