"""The comparison of a data set: every materialized evaluation, corrected over all methods."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pyarrow.parquet as pq

from ..config import Settings
from ..plan import Evaluate, Table, walk
from ..store.manifests import Manifest, ManifestStore

_COLUMNS = (
    "method", "base", "enhanced", "difference", "95 % interval", "corrected p", "controls", "tail",
    "seeds", "lift",
)  # fmt: skip


def collect(
    settings: Settings,
    dataset: str,
    task: str | None,
    only: Iterable[Evaluate] | None = None,
    *,
    as_run: bool = False,
) -> list[dict[str, Any]]:
    """Return the comparison rows of every evaluation; primary p corrected over methods (Holm).

    ``only``: the evaluations to tell of; with ``as_run`` the versions with their seeds and
    controls, else the newest. The fields of a row: method, base_method, task, metric, slice,
    base, enhanced, difference, relative, low, high, p, p_corrected, claim, one set of columns per
    control and reference.
    """
    from ..evaluate.significance import LEVEL, holm

    out: list[dict[str, Any]] = []
    store = ManifestStore(settings.data)
    if only is None:
        found = [m for m in store.all(dataset) if m.name.startswith("evaluations/")]
    else:
        pick = evaluation_of if as_run else _newest
        found = [m for e in only if (m := pick(store, dataset, e)) is not None]
    for manifest in sorted(found, key=lambda m: m.name):
        path = store.path(manifest)
        summary = json.loads((path / "summary.json").read_text())
        for row in pq.read_table(path / "rows.parquet").to_pylist():
            if task and row["task"] != task:
                continue
            out.append({**row, "is_baseline": summary["base"] is None, "flags": manifest.flags,
                        "verdict": summary["verdict"], "reasons_method": summary["reasons"],
                        "primary": summary["primary"]})  # fmt: skip
    heads = [r for r in out if _is_head(r) and not r["is_baseline"]]
    for name in {r["task"] for r in heads}:
        family = [r for r in heads if r["task"] == name]
        for row, p in zip(family, holm([r["p"] for r in family]), strict=True):
            row["p_corrected"] = p
            if row["verdict"] == "claimed" and (p is None or p >= LEVEL):
                row["verdict"] = "not shown"
                row["reasons_method"] = [f"the p corrected over {len(family)} methods is {p:.3g}"]
    return out


def evaluation_of(store: ManifestStore, dataset: str, node: Evaluate) -> Manifest | None:
    """Return the stored evaluation of ``node``; else the newest with its seeds and controls (its
    method may read another encoder's vectors), else any. Never one of another view of the data set.
    """
    view = "".join(sorted({n.view for n in walk([node]) if isinstance(n, Table)}))
    every = store.versions(dataset, node.name)
    mine = [m for m in every if m.info.get("view", "") == view]
    same = [m for m in mine if m.digest == node.digest]
    same = same or [m for m in mine if m.code_version == node.code_version]
    current = store.current(dataset, node.name)
    if same or current is None or current.info.get("view", "") == view:
        return same[-1] if same else current
    return mine[-1] if mine else None


def _newest(store: ManifestStore, dataset: str, node: Evaluate) -> Manifest | None:
    return store.current(dataset, node.name)


def _is_head(row: dict[str, Any]) -> bool:
    return row["slice"] == "all" and row["metric"] == row["primary"]


def leaderboard(settings: Settings, dataset: str, rows: list[dict[str, Any]]) -> str:
    """Return the Markdown leaderboard of a data set: one table per task, best first."""
    lines = [f"# {dataset}: enhanced against base and controls", ""]
    for task in sorted({r["task"] for r in rows}):
        mine = [r for r in rows if r["task"] == task]
        heads = sorted((r for r in mine if _is_head(r)), key=lambda r: -(r["enhanced"] or 0))
        lines += [f"## Task `{task}`, {heads[0]['primary']} on the test split", "",
                  _line(_COLUMNS), "|" + "---|" * len(_COLUMNS)]  # fmt: skip
        for head in heads:
            tail = next((r for r in mine if r["method"] == head["method"] and r["slice"] ==
                         "tail_items" and r["metric"] == head["metric"]), None)  # fmt: skip
            lines.append(_line(_cells(head, tail)))
        lines += ["", _legend(heads), ""]
        lines += [f"- {h['method']}: {h['verdict']}: {'; '.join(h['reasons_method'])}"
                  for h in heads if not h["is_baseline"] and h["reasons_method"]]  # fmt: skip
        lines.append("")
    return "\n".join(lines)


def _cells(head: dict[str, Any], tail: dict[str, Any] | None) -> tuple[str, ...]:
    from ..evaluate.report import between, number, p_value, percent, spread

    if head["is_baseline"]:
        tail_text = number(tail["enhanced"]) if tail else "n/a"
        return (head["method"], "", number(head["enhanced"]), "", "", "", "", tail_text,
                str(head["seeds"]), "baseline")  # fmt: skip
    controls = ", ".join(
        f"{name.removeprefix('control_')} {number(head[name])}"
        for name in sorted(head)
        if f"{name}_difference" in head and name.startswith("control_") and head[name] is not None
    )
    marks = "".join(f", {f.replace('_', ' ')}" for f in head["flags"])
    return (
        head["method"], spread(head["base"], head["base_sd"]),
        spread(head["enhanced"], head["enhanced_sd"]),
        f"{number(head['difference'], signed=True)} ({percent(head['relative'])})",
        between(head["low"], head["high"]), p_value(head["p_corrected"]), controls,
        f"{number(tail['base'])} to {number(tail['enhanced'])}" if tail else "n/a",
        str(head["seeds"]), head["verdict"] + marks,
    )  # fmt: skip


def _legend(heads: list[dict[str, Any]]) -> str:
    users = heads[0]["users"]
    return (
        f"{users} users. Interval: 95 %, paired bootstrap over users. Corrected p: Holm over the "
        "methods of this table. Controls fill the same slot: permuted (rows of other items or "
        "users), gaussian (random rows of the same moments), shuffled (a teacher's rankings of "
        "other positions), template (texts without a language model), random_pairs and "
        "popular_pairs (as many augmented pairs, drawn at random or by popularity), knnblend (the "
        "same texts without any training). Tail: the least popular items that hold 80 % of the "
        "catalog."
    )


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(c.replace("|", "/") for c in cells) + " |"
