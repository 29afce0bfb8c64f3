"""A pilot: a seeded sample of the missing rows, asked and paid now, whose answers are kept.

Its answers lie in the response store like any other, so the run that follows re-uses them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..plan import Generate
from .context import StepContext
from .forecast import Bill, Forecast
from .measured import plans_folder
from .steps.generate import ask

ROWS = 200


@dataclass(frozen=True)
class Pilot:
    """A pilot to be asked: one asset's ``keys`` (with the rows that ask them) and their bill."""

    forecast: Forecast
    ids: frozenset[str]
    keys: tuple[str, ...]
    bill: Bill

    @property
    def asset(self) -> str:
        return self.forecast.node.name


def propose(node: Generate, ctx: StepContext, rows: int = ROWS) -> Pilot | None:
    """Return the pilot that ``node`` needs; None where it has had one, or nothing is missing.

    Raises ``StepError`` where the inputs of ``node`` are not there.
    """
    forecast = Forecast(node, ctx)
    done = forecast.pilot = piloted(forecast)
    if not forecast.pays or not forecast.missing:
        return None
    if len(done) >= min(rows, len(done) + len(forecast.missing)):
        return None

    def draw(key: str) -> str:
        return hashlib.sha256(f"{ctx.settings.llm_seed}:{key}".encode()).hexdigest()

    # By the hash of the question: a sample that does not hang on the order of the rows.
    chosen = sorted(forecast.missing, key=lambda m: draw(m.key))[: rows - len(done)]
    keys = tuple(m.key for m in chosen)
    return Pilot(forecast, frozenset(m.row_id for m in chosen), keys, forecast.bill(chosen, 0.0))


def run_pilot(pilot: Pilot) -> dict[str, Any]:
    """Ask ``pilot`` through the runner, within the budget; return its counts."""
    forecast = pilot.forecast
    node, ctx = forecast.node, forecast.ctx
    result = ask(node, forecast.question, ctx, ids=pilot.ids)
    path = _record(node, ctx)
    path.parent.mkdir(parents=True, exist_ok=True)
    # What a budget left unasked stays to be asked by the next pilot.
    answered = forecast.question.store.known(pilot.keys)
    body = {**_terms(forecast), "keys": sorted({*forecast.pilot, *answered})}
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(body), encoding="utf-8")
    os.replace(temporary, path)
    return {"asset": node.name, "stopped": result.stopped, **result.counts}


def piloted(forecast: Forecast) -> frozenset[str]:
    """Return the keys that pilots of this asset answered under the terms of today."""
    path = _record(forecast.node, forecast.ctx)
    if not path.is_file():
        return frozenset()
    body = json.loads(path.read_text(encoding="utf-8"))
    same = all(body.get(k) == v for k, v in _terms(forecast).items())
    return frozenset(body["keys"]) if same else frozenset()


def _terms(forecast: Forecast) -> dict[str, Any]:
    """Return what answers depend on besides the rows: model, prompt and sampling."""
    sampling = dataclasses.asdict(forecast.question.sampling)
    return {
        "identity": forecast.info.identity,
        "prompt_revision": forecast.node.task.prompt_revision,
        "sampling": json.loads(json.dumps(sampling)),
    }


def _record(node: Generate, ctx: StepContext) -> Path:
    return plans_folder(ctx.settings) / "pilots" / ctx.dataset / node.prefix / f"{node.slug}.json"
