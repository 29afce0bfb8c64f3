"""What a materialization would cost, before anything runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ..llm.figures import NOTHING, UNKNOWN, Figure, added
from ..plan import Generate, Node, Teach, canonical, sha
from .choices import ranked
from .context import StepContext, StepError
from .effort import effort
from .forecast import Bill, Forecast, price_table
from .pilot import piloted
from .publish import stale_because

FIGURES = ("calls", "repairs", "tokens_in", "tokens_out", "money", "seconds", "gpu_hours")
_NO_CALLS = dict.fromkeys(FIGURES[:5], NOTHING)
_OPEN = dict.fromkeys(FIGURES, UNKNOWN)


def estimate(nodes: Iterable[Node], ctx: StepContext) -> list[dict[str, Any]]:
    """Return what each of ``nodes`` would do and cost, inputs first.

    The state is "fresh", why the node would do work, or which input has to be made first: a node
    behind one that changes does work only if the content changes. ``llm_calls`` is None where the
    inputs that decide the prompts are not there yet. ``FIGURES`` name the figures of each row;
    ``llm_calls`` are its new questions, ``calls`` their repairs as well.
    """
    rows: dict[str, dict[str, Any]] = {}
    claimed: set[str] = set()
    for node in nodes:
        why = stale_because(node, ctx)
        first = next((n.name for n in node.inputs if rows.get(n.name, {}).get("state", "fresh")
                      != "fresh"), "")  # fmt: skip
        have = ctx.manifests.current(ctx.dataset, node.name)
        row: dict[str, Any] = {
            "key": node.name, "verb": node.verb,
            "state": why or (f"after {first}" if first else "fresh"),
            "rows": have.rows if have else None, "llm_calls": 0, "stored": 0,
            "notes": [], "forks": [], "currency": "",
        }  # fmt: skip
        if row["state"] == "fresh":
            row |= _NO_CALLS | {"seconds": NOTHING, "gpu_hours": NOTHING}
        elif isinstance(node, Generate):
            row |= _asked(node, ctx, claimed, rows)
        elif isinstance(node, Teach) and node.how.asks_model:
            row |= ranked(node, ctx)
        else:
            row |= _worked(node, ctx)
        rows[node.name] = row
    _forks_within(rows)
    return list(rows.values())


def _worked(node: Node, ctx: StepContext) -> dict[str, Any]:
    """Return the figures of a step that asks no model."""
    seconds, device = effort(node, ctx)
    hours = seconds.times(1 / 3600) if device.startswith("cuda") else NOTHING
    return _NO_CALLS | {"seconds": seconds, "gpu_hours": hours if seconds.value else seconds}


def _asked(
    node: Generate, ctx: StepContext, claimed: set[str], rows: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the figures of a generated asset, and note in ``claimed`` what it pays for."""
    forecast = Forecast(node, ctx, claimed=frozenset(claimed))
    try:
        forecast.pilot = piloted(forecast)
        info, seen = forecast.info, forecast.survey
    except StepError as error:
        why = f"unknown until its inputs are there: {error}"
        return {"llm_calls": None, "stored": None, "notes": [why], **_OPEN}
    bill = forecast.bill()
    notes = list(bill.notes)
    for source in node.inputs:
        state = rows.get(source.name, {}).get("state", "fresh")
        have = ctx.manifests.current(ctx.dataset, source.name)
        if state != "fresh" and have is not None:
            notes.append(f"counted on the {have.rows:,} rows of {source.name} as of "
                         f"{have.created[:10]}: it is stale ({state})")  # fmt: skip
    if shared := len(seen.missing) - len(forecast.missing):
        notes.append(f"{shared:,} questions are asked by an asset above as well and paid there")
    claimed.update(m.key for m in forecast.missing)
    question = sha([canonical(node.task, inputs=False), [n.name for n in node.inputs]])
    return {
        "rows": seen.rows, "askable": seen.askable, "cached": seen.cached,
        "new": seen.new if forecast.pays else 0, "llm_calls": len(forecast.missing),
        "stored": seen.stored, "engine": info.kind, "model": info.label, "identity": info.identity,
        "price_name": info.model, "prompt_revision": node.task.prompt_revision,
        "question": question if forecast.pays else "", "forks": forecast.forks(), "notes": notes,
        **_figures(bill), "currency": bill.currency,
    }  # fmt: skip


def _figures(bill: Bill) -> dict[str, Figure]:
    return {name: getattr(bill, name) for name in FIGURES}


def _forks_within(rows: Mapping[str, dict[str, Any]]) -> None:
    """Note where one question over the same rows is asked of two models in one plan."""
    asked: dict[str, dict[str, Any]] = {}
    for row in rows.values():
        if not row.get("question"):
            continue
        other = asked.setdefault(row["question"], row)
        if other["identity"] != row["identity"]:
            row["forks"].append(
                f"fork: {other['key']} asks {other['model']} the same of the same "
                f"{row['askable']:,} rows; both are paid"
            )


def totals(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return sums over ``rows``: figures, money by currency, what is unknown, missing prices."""
    rows = list(rows)
    paying = [r for r in rows if r["calls"].value]
    money = {
        currency: added([r["money"] for r in paying if r["currency"] == currency])
        for currency in dict.fromkeys(r["currency"] for r in paying if r["currency"])
    }
    unpriced = list(dict.fromkeys(r["price_name"] for r in paying if not r["currency"]))
    sums = {n: added([r[n] for r in rows]) for n in FIGURES if n != "money"}
    return {
        "assets": len(rows), "work": sum(r["state"] != "fresh" for r in rows),
        **sums, "money": money, "no_price": {name: price_table(name) for name in unpriced},
        "unknown": {n: [r["key"] for r in rows if r[n].value is None]
                    for n in ("calls", "seconds", "gpu_hours")},
        "forks": [f"{r['key']}: {text}" for r in rows for text in r["forks"]],
    }  # fmt: skip


def plain(value: Any) -> Any:
    """Return figures as JSON data; an infinite end of an interval becomes None."""
    if isinstance(value, Figure):
        return plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return None
    return value
