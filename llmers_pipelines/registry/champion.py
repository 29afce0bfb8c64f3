"""Acts on the gate's decision: the alias moves to a promoted version, a refusal is recorded."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from .mlflow_store import MlflowStore


class Verdict(Protocol):
    """What ``evaluate.gate`` decides; read here, never made here."""

    promote: bool
    reasons: Any  # texts
    intervals: Any  # comparison -> its interval, as plain data or dataclasses


def decide_and_move(
    store: MlflowStore, name: str, version: str, decision: Verdict
) -> dict[str, Any]:
    """Move the champion of ``name`` to ``version`` or record why not; return what happened.

    A refused version that is champion already stays it (a serving model is replaced, not taken
    away). The result is plain data: ``model, candidate, promoted, champion, previous, reasons,
    intervals``; the same verdict is found as tags on the version and on its run.
    """
    reasons = [str(r) for r in decision.reasons]
    intervals = plain(decision.intervals)
    before = store.champion_version(name)
    verdict = {
        "gate": "promoted" if decision.promote else "refused",
        "gate.reasons": json.dumps(reasons, ensure_ascii=False),
        "gate.intervals": json.dumps(intervals, ensure_ascii=False),
        "gate.champion_before": before or "none",
    }
    # the tags come first: an alias without its verdict would be a promotion without a reason
    store.tag_version(name, version, verdict)
    if decision.promote:
        store.set_champion(name, version)
    return {
        "model": name,
        "candidate": version,
        "promoted": bool(decision.promote),
        "champion": version if decision.promote else before,
        "previous": before,
        "reasons": reasons,
        "intervals": intervals,
    }


def plain(value: Any) -> Any:
    """Return dataclasses, tuples and numpy numbers as JSON data."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value
