"""Stored plans, and what became of them: estimate against actual, asset by asset."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import Settings
from .context import StepContext
from .estimate import plain
from .forecast import price_of
from .measured import Measured, machine, measured, now, plans_folder

COMPARED = ("calls", "tokens_in", "tokens_out", "money", "seconds", "gpu_hours")
LOOKED_AT = 20  # plans of a data set in which the newest with a run is looked for


def store_plan(
    settings: Settings, dataset: str, what: Sequence[str], rows: Sequence[Mapping[str, Any]],
    total: Mapping[str, Any], pilots: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:  # fmt: skip
    """Write a plan below ``plans/<data set>/`` and return its document."""
    created = now()
    stamp = "".join(c for c in created[:26] if c.isdigit())  # plans of one second stay in order
    document = plain({
        "plan": f"{stamp}-{uuid.uuid4().hex[:6]}", "created": created, "dataset": dataset,
        "what": list(what), "machine": machine(), "assets": rows, "totals": total,
        "pilots": list(pilots),
    })  # fmt: skip
    path = plans_folder(settings) / dataset / f"{document['plan']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(document, ensure_ascii=False, default=str), encoding="utf-8")
    os.replace(temporary, path)
    return document


def _newest(settings: Settings, dataset: str) -> list[Path]:
    return sorted((plans_folder(settings) / dataset).glob("*.json"), reverse=True)[:LOOKED_AT]


def compared(
    ctx: StepContext, only: Sequence[str] | None = None, *, run: str = ""
) -> dict[str, Any] | None:
    """Return the newest plan with a run behind it, estimate against actual; None without one.

    An asset's actual is what its runs after the plan took, up to the one that published it. With
    ``only`` the answer is about the newest run of these assets: a plan that an earlier run carried
    out says nothing of it. With ``run`` a prompt task that the run of this id did not measure (it
    failed before it asked) is left out: its newest line is an earlier run's.
    """
    lines = measured(ctx.settings)
    if run:
        told = {(m.dataset, m.asset) for m in lines if m.run_id == run}
        lines = [m for m in lines if (m.dataset, m.asset) in told]
    for path in _newest(ctx.settings, ctx.dataset):
        document = json.loads(path.read_text(encoding="utf-8"))
        rows = [
            found for row in document["assets"]
            if (only is None or row["key"] in only)
            and (found := _compare(row, document["created"], lines, ctx, newest=only is not None))
        ]  # fmt: skip
        if rows:
            total = {
                name: _total([r[name] for r in rows if name in r])
                for name in COMPARED if _one_currency(rows) or name != "money"
            }  # fmt: skip
            return {"plan": document["plan"], "created": document["created"],
                    "dataset": ctx.dataset, "assets": rows, "totals": total}  # fmt: skip
    return None


def compared_asset(name: str, ctx: StepContext) -> dict[str, Any]:
    """Return one asset's estimate against actual, {} where no plan told of it."""
    found = compared(ctx, [name]) if ctx.apart is None else None
    return {"plan": found["plan"], **found["assets"][0]} if found else {}


def _compare(
    row: Mapping[str, Any], since: str, lines: Sequence[Measured], ctx: StepContext, *, newest: bool
) -> dict[str, Any] | None:
    """Return one asset's pairs; None where it has not run since the plan.

    With ``newest`` None as well where the run that followed is not the asset's newest.
    """
    if row["verb"] != "generate" and not row.get("engine"):
        return _compare_step(row, since, ctx, newest=newest)
    own = [
        m for m in lines
        if (m.dataset, m.asset) == (ctx.dataset, row["key"]) and m.at > since
        and not m.pilot and not m.experiment
    ]  # fmt: skip
    end = next((i for i, m in enumerate(own) if m.done), len(own) - 1)
    mine = own[: end + 1]
    if not mine or (newest and len(mine) < len(own)):
        return None
    hours = sum(m.seconds for m in mine if m.device.startswith("cuda")) / 3600
    actual: dict[str, float | None] = {
        "calls": sum(m.llm_calls for m in mine),
        "tokens_in": sum(m.tokens_in for m in mine), "tokens_out": sum(m.tokens_out for m in mine),
        "seconds": round(sum(m.seconds for m in mine), 3),
        "gpu_hours": hours,
    }  # fmt: skip
    booked = sum(m.money for m in mine)
    price = price_of(ctx.settings, row.get("price_name", ""))
    if booked or price is None:
        actual["money"] = booked if booked or not actual["calls"] else None
    else:
        tokens = price.tokens(actual["tokens_in"] or 0, actual["tokens_out"] or 0)
        actual["money"] = tokens + hours * price.gpu_hour
    pairs = {name: _pair(row[name]["value"], actual[name]) for name in COMPARED}
    return {"key": row["key"], "finished": mine[-1].done, "sources": {
        n: row[n]["source"] for n in COMPARED}, "currency": row["currency"], **pairs}  # fmt: skip


def _compare_step(
    row: Mapping[str, Any], since: str, ctx: StepContext, *, newest: bool
) -> dict[str, Any] | None:
    """Return the seconds of a step that asks no model."""
    # Manifests tell whole seconds.
    made = [m for m in ctx.manifests.versions(ctx.dataset, row["key"]) if m.created >= since[:19]]
    if row["state"] == "fresh" or not made or (newest and len(made) > 1):
        return None
    first = min(made, key=lambda m: m.created)
    return {"key": row["key"], "seconds": _pair(row["seconds"]["value"], first.seconds)}


def _pair(estimate: float | None, actual: float | None) -> dict[str, float | None]:
    """Return estimate, actual and the error in percent of the actual; None where unknown."""
    error = None
    if estimate is not None and actual is not None:
        if actual:
            error = round(100 * (estimate - actual) / actual, 2)
        elif not estimate:
            error = 0.0
    return {"estimate": estimate, "actual": actual, "error_percent": error}


def _total(pairs: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Return the pair of sums over the assets of which both sides are known."""
    known = [p for p in pairs if p["estimate"] is not None and p["actual"] is not None]
    if not known:
        return _pair(None, None)
    return _pair(*(sum(p[side] or 0.0 for p in known) for side in ("estimate", "actual")))


def _one_currency(rows: Sequence[Mapping[str, Any]]) -> bool:
    return len({r["currency"] for r in rows if r.get("currency")}) <= 1
