"""The stored answers and the requests of batches: which rows are not proven, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..prices import Price
from .findings import Fault, Look
from .formats import FormatError
from .hanging import hanging, is_key
from .manifests import ManifestStore
from .responses import ResponseStore
from .salvage import Damage, examine_segment, quarantine
from .segments import Segment
from .usage import money, usage

RECORDED = " (recorded)"  # how the model column ends where answers came from a file
OUTBOX = Path("batches", "outbox")  # of the data folder: requests that were exported to a batch


def audit_answers(look: Look) -> None:
    """Prove each stored answer; a damaged segment keeps its good rows."""
    store = ResponseStore(look.data / "responses")
    damages, newer = _examined(look, store, "answers", "responses")
    if not damages:
        return
    keys = {x.key for d, _ in damages for x in d.lost if x.key}
    # Where a newer version wrote segments, what they hold is not known: the most is told.
    gone = keys if newer else keys - set(store.lookup(k for k in keys if is_key(k)))
    unknown = any(d.whole or any(not is_key(x.key) for x in d.lost) for d, _ in damages)
    manifests = ManifestStore(look.data)
    assets = hanging(manifests, gone, store if unknown and not newer else None)
    for damage, moved in damages:
        names = tuple(assets) if damage.lost or damage.whole else ()
        for line in damage.lines():
            look.report.faults.append(Fault(
                "answers", str(damage.path), line,
                damage.mend, names, moved,
            ))  # fmt: skip
    look.report.regeneration["answers"] = _cost(
        [d for d, _ in damages], gone, store, look.prices, list(assets)
    )


def audit_outbox(look: Look) -> None:
    """Prove each exported request: without it the answer that a provider sends has no key."""
    store = ResponseStore(look.data / OUTBOX)
    damages, _ = _examined(look, store, "batches", "batches")
    for damage, moved in damages:
        look.report.faults += [
            Fault("batches", str(damage.path), line,
                  "`llmers batch export` of the same assets to a new file, which is not sent, "
                  "notes equal requests under equal names; then import the answers", (), moved)
            for line in damage.lines()]  # fmt: skip


def _examined(
    look: Look, store: ResponseStore, kind: str, folder: str
) -> tuple[list[tuple[Damage, str]], bool]:
    """Return each damaged segment with where it was moved, and whether newer forms are there."""
    damages: list[tuple[Damage, str]] = []
    newer = False
    for segment in store.segments.segments():
        look.report.count({"answers": "answer segments"}.get(kind, "batch segments"))
        try:
            found = examine_segment(store.segments, segment)
        except FileNotFoundError:
            continue  # merged meanwhile: its rows are in a segment of a later listing
        except FormatError as error:
            look.report.newer(kind, segment.path, error)
            newer = True
            continue
        if found is not None:
            damages.append((found[0], _moved(look, store, segment, *found, folder)))
    return damages, newer


def _moved(
    look: Look, store: ResponseStore, segment: Segment, damage: Damage, good: pa.Table, folder: str
) -> str:
    if look.aside is None:
        return ""
    return str(quarantine(store.segments, segment, damage, good, look.aside / folder))


def _cost(
    damages: list[Damage], gone: set[str], store: ResponseStore,
    prices: Mapping[str, Price], assets: list[str],
) -> dict[str, Any]:  # fmt: skip
    """Return calls, tokens and money of asking the lost rows again.

    A lost row whose tokens cannot be read, and the rows of a segment without a readable footer,
    count as the mean of what is stored, in proportion to bytes.
    """
    try:
        kept = usage(store.segments)
    except FormatError:  # what a newer version wrote tells no mean
        kept = {"rows": 0, "bytes": 0, "groups": [], "tokens_in": 0, "tokens_out": 0}
    mean = {n: kept[n] / max(kept["rows"], 1) for n in ("tokens_in", "tokens_out")}
    rows: dict[str, dict[str, Any]] = {}
    estimated = recorded = 0
    for x in (x for d in damages for x in d.lost if not is_key(x.key) or x.key in gone):
        if (x.model or "").endswith(RECORDED):
            recorded += 1  # read again from their file
            continue
        blank = x.tokens_in is None or x.tokens_out is None
        estimated += blank
        rows.setdefault(x.key or f"{len(rows)}", {
            "model": x.model,
            "tokens_in": mean["tokens_in"] if blank else x.tokens_in,
            "tokens_out": mean["tokens_out"] if blank else x.tokens_out,
        })  # fmt: skip
    per_row = kept["bytes"] / max(kept["rows"], 1)
    lost = sum(d.size for d in damages if d.whole)
    guess = round(lost / per_row) if per_row else 0
    tops = sorted(kept["groups"], key=lambda g: -g["answers"])
    whole = [{"model": tops[0]["model"] if tops else None, **mean}] * guess
    every = [*rows.values(), *whole]
    return {
        "calls": len(every), "recorded_rows": recorded,
        "tokens_in": round(sum(r["tokens_in"] for r in every)),
        "tokens_out": round(sum(r["tokens_out"] for r in every)),
        "money": money(prices, every), "estimated_rows": estimated + guess,
        "unreadable_segments": sum(d.whole for d in damages), "assets": assets,
    }  # fmt: skip
