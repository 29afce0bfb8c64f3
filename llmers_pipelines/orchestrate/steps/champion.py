"""Champion: the gate of one task. It alone moves the alias, on validation, never on test."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...plan import Champion, Register, sha
from ...store.manifests import CheckOutcome
from ..context import Outcome, StepContext
from ..references import FIXED_REFERENCE, task_of


def run(node: Champion, ctx: StepContext) -> Outcome:
    """Put the candidates to the gate, best validation first, until one passes."""
    from ...evaluate.gate import REFUSED_MARKS
    from ...registry.mlflow_store import MlflowStore, model_name

    store = MlflowStore.from_settings(ctx.settings)
    name = model_name(ctx.dataset, node.task)
    entries = [
        _entry(r, ctx) for r in node.candidates if ctx.manifests.current(ctx.dataset, r.name)
    ]
    entries.sort(key=lambda e: -(e["valid"] if e["valid"] is not None else float("-inf")))
    wanted = FIXED_REFERENCE.get(task_of(node.task), "")
    fixed = f"recommenders/{wanted}"
    reference = next((e["table"] for e in entries if e["asset"].startswith(fixed)), None)
    before = store.champion_version(name)
    of_champion = [f for e in entries if e["version"] == before for f in e["flags"]]
    marks = [f for f in of_champion if f in REFUSED_MARKS]
    verdicts: list[dict[str, Any]] = []
    done = ""
    for entry in entries:
        if done:
            verdict = _passed_over(entry, f"{done} has the higher validation metric", store, name)
        else:
            verdict = _judge(entry, reference, marks, store, name, ctx)
        verdicts.append({**_row(entry), **verdict})
        if verdict["promoted"] or verdict.get("stands"):
            done = entry["asset"]
    champion = store.champion_version(name)
    report = _report(name, champion, verdicts)
    body = {"model_name": name, "champion": champion, "verdicts": verdicts}
    won = next((e["version"] for e in entries if e["asset"] == done), before)
    consistent = champion == won

    def save(folder: Path) -> None:
        (folder / "champion.json").write_text(json.dumps(body, indent=1, default=str))

    return Outcome(
        save,
        sha([name, champion, [[v["asset"], v["version"], v["promoted"]] for v in verdicts]]),
        rows=1,
        counts={"champion": f"{name} version {champion}" if champion else "none"},
        checks=(
            CheckOutcome("alias_consistent", consistent, True, {"champion": champion or "none"}),
        ),
        info={**body, "report": report},
    )


def _entry(register: Register, ctx: StepContext) -> dict[str, Any]:
    train = register.evaluation.model
    manifest = ctx.manifest(register)
    trained = ctx.manifest(train)
    table = pq.read_table(ctx.manifests.path(trained) / "valid.parquet")
    return {
        "asset": train.name, "version": str(manifest.info["version"]), "table": table,
        "valid": trained.counts.get("best_valid"), "data_version": trained.data_version,
        "flags": ctx.manifest(register.evaluation).flags,
    }  # fmt: skip


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    return {k: entry[k] for k in ("asset", "version", "valid", "flags")}


def _passed_over(entry: dict[str, Any], why: str, store: Any, name: str) -> dict[str, Any]:
    """Record on the version why it is not the champion, its own marks first; no alias moves."""
    from ...evaluate.gate import Decision, refusals
    from ...registry.champion import decide_and_move

    reasons = (*refusals(entry["flags"]), why)
    return decide_and_move(store, name, entry["version"], Decision(False, reasons, {}))


def _judge(
    entry: dict[str, Any],
    reference: pa.Table | None,
    marks: list[str],
    store: Any,
    name: str,
    ctx: StepContext,
) -> dict[str, Any]:
    """Put one candidate to the gate; ``marks`` are those of the champion that refuse a result."""
    from ...evaluate.gate import NO_CHAMPION, decide
    from ...registry.champion import decide_and_move

    current = store.champion_version(name)
    if current == entry["version"]:
        if not marks:
            return {"promoted": False, "stands": True, "reasons": ["it is the champion"]}
        why = f"it is the champion, and now marked {', '.join(marks)}: the next that passes follows"
        return _passed_over(entry, why, store, name)
    if marks:  # nothing has to be better than figures that do not count
        told = f"version {current} is marked {', '.join(marks)} and no measure"
        against = Opponent(None, told)
    else:
        against = _opponent(current, entry, store, name, ctx)
    decision = decide(
        entry["table"], against.table, reference, marks=entry["flags"],
        is_reference=entry["table"] is reference, is_refresh=against.refresh,
    )  # fmt: skip
    if against.note:
        kept = tuple(r for r in decision.reasons if current is None or r != NO_CHAMPION)
        decision = replace(decision, reasons=(*kept, against.note))
    return decide_and_move(store, name, entry["version"], decision)


@dataclass(frozen=True)
class Opponent:
    """What a candidate answers to: the champion's validation table, comparable with its own.

    ``table`` is None without a champion or where nothing of it can be compared; ``refresh`` says
    that the candidate is the champion's own method with the same settings, made from newer inputs.
    """

    table: pa.Table | None
    note: str = ""
    refresh: bool = False


def _opponent(version: str | None, entry: dict[str, Any], store: Any, name: str,
              ctx: StepContext) -> Opponent:  # fmt: skip
    """Return what ``entry`` is held against.

    Where the rows are the same, that is the table the champion was promoted with. After a change of
    the data its ranks are about other rows: then its method, trained anew, stands for it, and a new
    version of the champion's own method has only the fixed reference to answer to.
    """
    if version is None:
        return Opponent(None)
    tags = store.client().get_model_version(name, version).tags
    asset = tags.get("asset", "")
    old = ctx.manifests.version(ctx.dataset, asset, tags.get("data_version", ""))
    now = ctx.manifests.current(ctx.dataset, asset)
    own = asset == entry["asset"]
    digest = tags.get("digest") or (old.digest if old is not None else "")
    refresh = own and now is not None and now.digest == digest
    for manifest in (old, now):
        if manifest is not None and ctx.manifests.path(manifest).is_dir():
            table = pq.read_table(ctx.manifests.path(manifest) / "valid.parquet")
            if _same_rows(table, entry["table"]):
                if manifest is now and own and manifest != old:
                    break  # the candidate itself
                return Opponent(table, refresh=refresh)
    if own:
        why = f"the data changed: this is version {version}'s method, trained anew on it"
        return Opponent(None, why, refresh)
    gone = f"version {version} ({asset}) cannot be compared: its data is no longer stored"
    return Opponent(None, gone)


def _same_rows(a: pa.Table, b: pa.Table) -> bool:
    """Say whether two validation tables are about the same users and targets (or impressions)."""
    keys = ["user_id", "row" if "row" in a.column_names else "item"]
    if a.num_rows != b.num_rows or set(a.column_names) != set(b.column_names):
        return False
    order = [(k, "ascending") for k in keys]
    return a.select(keys).sort_by(order).equals(b.select(keys).sort_by(order))


def _report(name: str, champion: str | None, verdicts: list[dict[str, Any]]) -> str:
    lines = [f"champion of `{name}`: {'version ' + champion if champion else 'none'}", "",
             "| model | version | validation | verdict | reasons |",
             "|---|---|---|---|---|"]  # fmt: skip
    for v in verdicts:
        verdict = "promoted" if v["promoted"] else "stands" if v.get("stands") else "refused"
        valid = "" if v["valid"] is None else f"{v['valid']:.4f}"
        lines.append(f"| {v['asset'].split('/')[1]} | {v['version']} | {valid} | {verdict} | "
                     f"{'; '.join(v['reasons'])} |")  # fmt: skip
    return "\n".join(lines)
