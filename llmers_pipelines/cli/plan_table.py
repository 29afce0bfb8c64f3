"""A plan as people read it: short tables of at most 100 columns, then what to know about them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import click

from .common import table

WIDTH = 100


def show_plan(document: Mapping[str, Any]) -> None:
    """Print what would run, what asking costs, totals, and notes."""
    rows = document["assets"]
    table(
        ("asset", "state", "rows", "new", "calls", "time"),
        [(_cut(r["key"], 48), _cut(r["state"], 26), _whole(r["rows"]), _whole(r.get("new")),
          _cell(r["calls"]), _time(r["seconds"])) for r in rows],
    )  # fmt: skip
    asked = [r for r in rows if r.get("engine") and r["calls"]["value"]]
    if asked:
        click.echo()
        table(
            ("asked of a model", "cached", "calls", "repairs", "tokens in", "tokens out", "money",
             "GPU-hours"),
            [(_cut(r["key"].split("/")[-1], 26), f"{r['cached']:,}", _cell(r["calls"]),
              _cell(r["repairs"]), _cell(r["tokens_in"]), _cell(r["tokens_out"]),
              _money(r["money"], r["currency"]), _hours(r["gpu_hours"])) for r in asked],
        )  # fmt: skip
    _explain(rows, asked)
    _total(document["totals"])
    click.echo(f"Stored as plan {document['plan']}; after the run: llmers plan --check "
               f"-d {document['dataset']}")  # fmt: skip


def _explain(rows: Sequence[Mapping[str, Any]], asked: Sequence[Mapping[str, Any]]) -> None:
    """Print forks, notes, and where each figure comes from."""
    told = [(r["key"], text) for r in rows for text in r["forks"]]
    notes = [(r["key"], text) for r in rows for text in r["notes"]]
    sources = []
    for row in asked:
        read, written = row["tokens_in"], row["tokens_out"]
        error = f" (standard error {_short(read['se'])})" if read["se"] else ""
        sources.append(
            (
                row["key"],
                f"tokens in {read['source']}: {read['detail']}{error}; tokens "
                f"out {written['source']}: {written['detail']}{_between(written)}; "
                f"time: {_time_source(row['seconds'])}",
            )
        )
    for style, title, lines in (("yellow", "Forks", told), (None, "Notes", notes),
                                (None, "Sources", sources)):  # fmt: skip
        if lines:
            click.secho(f"\n{title}", bold=True)
        for key, text in lines:
            click.secho(textwrap.fill(f"{key}: {text}", WIDTH, subsequent_indent="  ",
                                      initial_indent="- "), fg=style)  # fmt: skip


def _time_source(seconds: Mapping[str, Any]) -> str:
    told = seconds["detail"] or seconds["source"]
    measured = "earlier runs" in seconds["source"]
    return f"{told}; another load of the machine makes it another" if measured else told


def _total(total: Mapping[str, Any]) -> None:
    unknown = total["unknown"]
    plus = {n: f" + {len(keys)} unknown" if keys else "" for n, keys in unknown.items()}
    money = ", ".join(f"{_money(m, c)}{_between(m)}" for c, m in total["money"].items())
    unpriced = list(total["no_price"])
    if unpriced:
        money = f"{money}, " * bool(money) + f"no price for {', '.join(unpriced)}"
    parts = [
        f"{_cell(total['calls'])} LLM calls{plus['calls']}",
        f"{_cell(total['tokens_in'])} tokens in", f"{_cell(total['tokens_out'])} tokens out",
        money or "no money", f"time {_time(total['seconds'])}{plus['seconds']}",
        f"GPU-hours {_hours(total['gpu_hours'])}{plus['gpu_hours']}",
    ]  # fmt: skip
    click.echo(f"\n{total['assets']} assets, at most {total['work']} would do work.")
    click.secho(textwrap.fill("Total: " + "; ".join(parts) + ".", WIDTH), bold=True)
    for name, snippet in total["no_price"].items():
        click.echo(f"\nTo see money for {name}, add to llmers.toml:\n"
                   f"{textwrap.indent(snippet, '  ')}")  # fmt: skip


def show_check(found: Mapping[str, Any]) -> None:
    """Print estimate against actual of a plan that was carried out."""
    from ..orchestrate.plans import COMPARED

    lines = [
        (_cut(r["key"], 36), name, r[name]["estimate"], r[name]["actual"],
         r[name]["error_percent"], r.get("sources", {}).get(name, ""))
        for r in [*found["assets"], {"key": "total", **found["totals"]}]
        for name in COMPARED if name in r
    ]  # fmt: skip
    click.echo(f"Plan {found['plan']} of {found['created'][:19]} against the run that followed")
    table(
        ("asset", "figure", "estimate", "actual", "error %", "source"),
        [(key, name, _number(a, name), _number(b, name), "-" if e is None else f"{e:+.1f}", source)
         for key, name, a, b, e, source in lines],
    )  # fmt: skip


def pilot_line(pilot: Any) -> str:
    """Return what a pilot would ask and cost, in one line."""
    from ..orchestrate.estimate import plain

    bill = plain({n: getattr(pilot.bill, n) for n in ("calls", "tokens_in", "tokens_out", "money")})
    if bill["tokens_out"]["source"] == "bound":  # what is to be agreed to is the worst case
        for figure in bill.values():
            figure |= {"value": figure["high"], "source": "bound"}
    money = _money(bill["money"], pilot.bill.currency)
    return (f"pilot of {pilot.asset}: {len(pilot.keys)} rows, {_cell(bill['calls'])} calls, "
            f"{_cell(bill['tokens_in'])} tokens in, {_cell(bill['tokens_out'])} out, {money} "
            "(repairs included)")  # fmt: skip


def _number(value: float | None, name: str) -> str:
    if value is None:
        return "-"
    return f"{value:,.4f}" if name in ("money", "gpu_hours") else f"{value:,.1f}".removesuffix(".0")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 10]}...{text[-7:]}"


def _whole(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _short(value: float) -> str:
    """Return 950, 12.3k, 4.56M: three digits, as far as a plan is good."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= unit:
            scale = 1e3 if name == "k" else unit
            return (
                f"{value / scale:.3g}{name}"
                if value / scale < 1000
                else f"{value / scale:.0f}{name}"
            )
    return f"{value:,.0f}"


def _cell(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return "unknown"
    return _mark(figure) + _short(figure["value"])


def _mark(figure: Mapping[str, Any]) -> str:
    if "bound" in figure["source"].split(" + "):
        return "<="
    return "" if figure["source"] in ("rendered", "none") or not figure["value"] else "~"


def _money(figure: Mapping[str, Any], currency: str) -> str:
    if figure["value"] is None:
        return "no price"
    return f"{_mark(figure)}{figure['value']:,.2f} {currency}".strip()


def _hours(figure: Mapping[str, Any]) -> str:
    return "unknown" if figure["value"] is None else f"{_mark(figure)}{figure['value']:,.2f}"


def _time(figure: Mapping[str, Any]) -> str:
    value = figure["value"]
    if value is None:
        return "unknown"
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if value >= unit:
            return f"{_mark(figure)}{value / unit:.1f} {name}"
    return f"{_mark(figure)}{value:.1f} s" if value else "0 s"


def _between(figure: Mapping[str, Any]) -> str:
    """Return the 90 % interval in words, or the worst case of a bound; "" where there is none."""
    low, high = figure["low"], figure["high"]
    if low is None or high is None or low == high:
        return ""
    if "bound" in figure["source"]:
        most = f"{high:,.2f}" if high < 100 else _short(high)
        return f" (at most {most} if every answer is refused and asked again)"
    if figure["value"] and figure["value"] < 100:
        return f" (90 % interval {low:,.2f} to {high:,.2f})"
    return f" (90 % interval {_short(low)} to {_short(high)})"
