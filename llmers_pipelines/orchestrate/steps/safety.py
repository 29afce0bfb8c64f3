"""Configured checks of generated texts: a column of findings, asset checks, and what is withheld.

They read the texts of a table that is about to be published. Prompts, keys and stored answers know
nothing of them, so other settings publish anew without a call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ...prompts.safety import Finding, examine, masked
from ...safety import SafetyCheck
from ...store.manifests import CheckOutcome

HELD = "held"
_OWN = {"status", "reason", "raw", "request_key", "prompt_revision", "model", "truncated"}
FINDING = pa.struct([
    ("check", pa.string()), ("kind", pa.string()), ("evidence", pa.string()),
    ("start", pa.int32()), ("end", pa.int32()), ("action", pa.string()),
])  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """What the checks of one table say, and counts ``safety_<check>``, ``held``, ``masked``."""

    checks: tuple[CheckOutcome, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)


def check_texts(table: pa.Table, checks: Sequence[SafetyCheck]) -> tuple[pa.Table, Judged]:
    """Return ``table`` with the column ``safety`` and with texts masked or held, and the verdicts.

    ``safety`` lists the findings of the row's text as it was accepted; places count its characters.
    A held row keeps its id and raw answer, has status "held", and neither text nor fields. Masking
    covers the text, its fields and the raw answer. Without checks the table is returned as it is.
    """
    if not checks:
        return table, Judged()
    texts: list[str | None] = table["text"].to_pylist()
    found = examine(texts, checks)
    rows = table.to_pylist()
    out = [_acted(row, findings, checks) for row, findings in zip(rows, found, strict=True)]
    schema = table.schema.append(pa.field("safety", pa.list_(FINDING)))
    for row, findings in zip(out, found, strict=True):
        row["safety"] = [_told(f) for f in findings]
    id_column = table.column_names[0]
    present = sum(text is not None for text in texts)
    ids = [str(row[id_column]) for row in rows]
    verdicts = tuple(verdict(check, ids, found, present) for check in checks)
    counts = {v.name: int(v.details["texts with findings"]) for v in verdicts}
    counts["held"] = sum(row["status"] == HELD for row in out)
    counts["masked"] = sum(a.get("text") is not None and a["text"] != b["text"]
                           for a, b in zip(out, rows, strict=True))  # fmt: skip
    return pa.Table.from_pylist(out, schema=schema), Judged(verdicts, counts)


def verdict(
    check: SafetyCheck, ids: Sequence[str], found: Sequence[Sequence[Finding]], present: int
) -> CheckOutcome:
    """Return the asset check: failed where more than ``max_share`` of the texts have a finding."""
    own = [[f for f in findings if f.check == check.name] for findings in found]
    flagged = [row_id for row_id, findings in zip(ids, own, strict=True) if findings]
    kinds = Counter(kind for findings in own for kind in {f.kind for f in findings})
    most = sorted(((n, kind) for kind, n in kinds.items()), key=lambda pair: (-pair[0], pair[1]))
    share = len(flagged) / max(1, present)
    details: dict[str, Any] = {
        "texts": present, "texts with findings": len(flagged), "share": round(share, 4),
        "limit": check.max_share, "action": check.action,
        "kinds": ", ".join(f"{kind} {n}" for n, kind in most) or "none",
        "rows": ", ".join(flagged[:5]) or "none",
    }  # fmt: skip
    failed = share > check.max_share
    if failed:
        details["why"] = (
            f"{share:.1%} of the texts have a finding, the limit is {check.max_share:.1%} "
            f"([safety.{check.name}] max_share)"
        )
    return CheckOutcome(f"safety_{check.name}", not failed, check.blocking, details)


def _told(finding: Finding) -> dict[str, Any]:
    """Return a finding as a cell; what is masked is not repeated in it."""
    told = dict(vars(finding))
    if finding.action == "mask":
        told["evidence"] = f"{finding.kind} of {finding.end - finding.start} characters"
    return told


def _acted(
    row: dict[str, Any], findings: Sequence[Finding], checks: Sequence[SafetyCheck]
) -> dict[str, Any]:
    """Return the row as its findings' actions leave it; ``hold`` goes before ``mask``."""
    holding = [f for f in findings if f.action == "hold"]
    if holding:
        kinds = ", ".join(dict.fromkeys(f"{f.check} ({f.kind})" for f in holding))
        why = "; ".join(filter(None, (row["reason"], f"held by a safety check: {kinds}")))
        kept = {"status": HELD, "reason": why}
        own = {k: v for k, v in row.items() if k in _OWN or k.endswith("_id")}
        return {**dict.fromkeys(row), **own, **kept}
    if not any(f.action == "mask" for f in findings):
        return dict(row)
    fixed = _OWN - {"raw"}
    return {k: v if k in fixed or k.endswith("_id") else _cover(v, checks) for k, v in row.items()}


def _cover(value: Any, checks: Sequence[SafetyCheck]) -> Any:
    if isinstance(value, str):
        return masked(value, checks)
    return [_cover(v, checks) for v in value] if isinstance(value, list) else value
