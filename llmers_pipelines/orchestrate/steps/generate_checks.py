"""What is checked of generated rows, and what their columns mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from ...data.training import HISTORY, TrainingData
from ...plan import Generate
from ...store.manifests import CheckOutcome

ACCEPTED = ("ok", "repaired", "fallback")
PROFILES = "user_profiles"  # texts that speak of what a user did; candidates may be named elsewhere


def titles_of(items: pa.Table | None) -> dict[str, str]:
    """Return title by item id."""
    if items is None:
        return {}
    pairs = zip(items["item_id"].to_pylist(), items["title"].to_pylist(), strict=True)
    return {item_id: title for item_id, title in pairs if title}


def answer_checks(
    node: Generate, table: pa.Table, rows: list[dict[str, Any]], log: TrainingData | None,
    flags: tuple[str, ...], titles: Mapping[str, str],
) -> tuple[CheckOutcome, ...]:  # fmt: skip
    """Return leakage, coverage and refusals; ``titles`` by item id, of tasks about users."""
    from ...data.leakage import prompt_violations, title_violations

    violations: list[Any] = []
    shown = 0
    more: tuple[CheckOutcome, ...] = ()
    if log is not None and node.task.entity in ("user", "row"):
        pairs = [(r["user_id"], e["item_id"]) for r in rows for e in r["history"] if "item_id" in e]
        shown = len(pairs)
        violations = prompt_violations(
            log, [u for u, _ in pairs], [i for _, i in pairs],
            history_only=bool((log.split == HISTORY).any()),
        )  # fmt: skip
    if log is not None and node.prefix == PROFILES:
        pairs = zip(table["user_id"].to_pylist(), table["text"].to_pylist(), strict=True)
        texts = {user: text for user, text in pairs if text}
        named = title_violations(log, texts, titles)
        found: dict[str, Any] = {"texts": len(texts), "naming one": len(named)}
        if named:
            found["why"] = "; ".join(str(v) for v in named[:3])
        more = (CheckOutcome("no_held_out_title", not named, False, found),)
    status = table["status"].to_pylist()
    accepted = sum(s in ACCEPTED for s in status)
    refused = sum(s == "quarantined" for s in status)
    n = max(1, len(status))
    details: dict[str, Any] = {"interactions shown": shown, "violations": len(violations),
                               "flags": ", ".join(flags) or "none"}  # fmt: skip
    if violations:
        details["why"] = "; ".join(str(v) for v in violations[:3])
    return (
        CheckOutcome("no_leakage", not violations, True, details),
        CheckOutcome("coverage", accepted >= 0.5 * n, False,
                     {"accepted": accepted, "rows": len(status)}),
        CheckOutcome("quarantine_small", refused <= 0.05 * n, False,
                     {"quarantined": refused, "rows": len(status)}),
        *more,
    )  # fmt: skip


def answer_columns(table: pa.Table) -> tuple[tuple[str, str, str], ...]:
    """Return name, type and meaning of each column."""
    notes = {
        "text": "the accepted answer as one text; null where none was accepted",
        "status": "ok, repaired, fallback, no_answer, quarantined, held",
        "safety": "what the configured checks found in the text: check, kind, place, evidence",
        "reason": "why an answer was refused or is missing",
        "raw": "the answer as it came, also where it was refused",
        "request_key": "key in the response store",
        "prompt_revision": "task, revision and settings of the prompt",
        "model": "who answered",
        "truncated": "what the prompt left out of the row's data; null where it told all of it",
    }
    return tuple((f.name, str(f.type), notes.get(f.name, "")) for f in table.schema)
