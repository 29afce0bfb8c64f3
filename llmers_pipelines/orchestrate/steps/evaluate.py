"""Evaluate: every arm and seed as a stored cell; metrics are queries over their tables."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...data.leakage import MEMORISED
from ...plan import Evaluate, Teach, Train, sha
from ...store.manifests import CheckOutcome
from ..aside import beside, per_tokens, vector_grid
from ..budget import budgets
from ..cells import MAIN, Cell, run_cell
from ..context import Outcome, StepContext
from ..list_kinds import kinds_of
from ..memorised import remembering
from ..teachers import required_controls

BASE, ENHANCED = "base", "enhanced"
WITHOUT_MEANING = ("permuted", "gaussian", "shuffled")  # controls that no knowledge is left in


def sources(node: Evaluate, ctx: StepContext) -> dict[str, str]:
    """Return the models below the method that a probe found to know the data set."""
    known = remembering(node.model, ctx)
    return {MEMORISED: ", ".join(known)} if known else {}


def run(node: Evaluate, ctx: StepContext) -> Outcome:
    """Train the missing cells and compare enhanced, base, controls and references on test."""
    from ...evaluate.compare import compare
    from ...evaluate.report import Header, interval_plot, markdown
    from ...evaluate.slices import standard_slices

    cells = gather(node, ctx)
    data = ctx.load(node.model.log)
    known = remembering(node.model, ctx)
    own = (MEMORISED,) if known else ()
    flags = (*ctx.manifest(node.model).flags, *own)
    # A baseline is compared with itself: its rows carry values and user intervals, no gain.
    alone = node.base is None
    tables = {key: cell.table("test") for key, cell in cells.items()}
    comparison = compare(
        tables,
        base=ENHANCED if alone else BASE,
        enhanced=ENHANCED,
        references=[] if alone else [_name(r) for r in node.references],
        slices=standard_slices(data),
        marks=list(flags),
        required=() if alone else required_controls(node.model),
    )
    trains = {name: train for name, train, arm in arms_of(node) if arm == MAIN}
    kinds = kinds_of(node.model, data, ctx)
    aside = beside(cells, trains, data, comparison, kinds)
    cost = [told] if (told := per_tokens(node.model, comparison, ctx)) else []
    records = {f"{arm}/{seed}": cell.record for (arm, seed), cell in cells.items()}
    title = f"{node.model.slug} on {ctx.dataset}"
    if known:
        cost.append(f"Memory: {', '.join(known)} knows records of this data set, as probed; no "
                    "lift is claimed")  # fmt: skip
    if kinds and aside.beyond:
        cost.append(f"Categories of lists: the items' {kinds.field}")
    versions = {node.model.name: ctx.manifest(node.model).data_version}
    report = markdown(
        comparison, Header.of(data, title=title, dataset=ctx.dataset, versions=versions,
                              notes=(*repeats(tables), *cautions(node, data), *_notes(node, cells),
                                     *_teachers(node, ctx), *cost)),
        beyond=aside.beyond, more=(*aside.grids, *vector_grid(node.model, data, ctx)),
    )  # fmt: skip
    rows = _with_names(comparison.table(), node, ctx)
    plot = b"" if alone else interval_plot(comparison)
    summary = {
        "method": node.model.slug, "recipe": node.model.recipe, "task": node.model.log.task,
        "base": node.base.slug if node.base else None, "verdict": comparison.verdict.status,
        "reasons": list(comparison.verdict.reasons), "primary": comparison.primary,
        "metrics": _headline(comparison), "cells": records, "seeds": node.seeds,
        "flags": list(flags), "beyond": aside.beyond,
    }  # fmt: skip

    def save(folder: Path) -> None:
        pq.write_table(rows, folder / "rows.parquet", compression="zstd")
        (folder / "report.md").write_text(report, encoding="utf-8")
        (folder / "comparison.json").write_text(comparison.to_json(), encoding="utf-8")
        (folder / "summary.json").write_text(json.dumps(summary, indent=1, default=str))
        if plot:
            (folder / "intervals.png").write_bytes(plot)

    counts = {
        "cells": len(cells), "trained now": sum(c.trained_now for c in cells.values()),
        "cpu_seconds": round(sum(c.record["cpu_seconds"] for c in cells.values()), 1),
        "verdict": comparison.verdict.status, **summary["metrics"],
    }  # fmt: skip
    from ..context import hash_table

    return Outcome(
        save,
        sha([hash_table(rows), *own]) if own else hash_table(rows),  # a mark changes the report
        rows=rows.num_rows,
        counts={k: v for k, v in counts.items() if v is not None},
        checks=_checks(node, comparison, cells),
        flags=own,
        columns=tuple((f.name, str(f.type), "") for f in rows.schema),
        info={**summary, "report": report, "cells": len(cells),
              **({"view": ctx.settings.view} if ctx.settings.view else {}),
              **({"plot": base64.b64encode(plot).decode()} if plot else {})},
    )  # fmt: skip


def gather(node: Evaluate, ctx: StepContext) -> dict[tuple[str, int | None], Cell]:
    """Return every cell of the evaluation, training those that are not stored yet."""
    out: dict[tuple[str, int | None], Cell] = {}
    for name, train, arm in arms_of(node):
        exact = train.backbone.closed_form and arm == MAIN
        # A reference needs one run: the base is held against it, nothing is claimed of it.
        seeds = (
            1 if exact or name not in (ENHANCED, BASE, "template", *node.controls) else node.seeds
        )
        for seed in range(seeds):
            ctx.log(f"{node.slug}: arm {name}, seed {seed}")
            out[(name, None if exact or seeds < node.seeds else seed)] = run_cell(
                train, arm, seed, ctx
            )
    return out


def arms_of(node: Evaluate) -> list[tuple[str, Train, str]]:
    """Return (name, what is trained, arm of its cells) of all that the evaluation compares."""
    arms: list[tuple[str, Train, str]] = [(ENHANCED, node.model, MAIN)]
    if node.base is not None:
        arms.append((BASE, node.base, MAIN))
        arms += [(control, node.model, control) for control in node.controls]
        if node.template is not None:
            arms.append(("template", node.template, MAIN))
        baselines = (*node.references, *([node.untrained] if node.untrained else ()))
        arms += [(_name(r), r, MAIN) for r in baselines]
    return arms


def _name(train: Train) -> str:
    return train.slug


def _headline(comparison: Any) -> dict[str, float | None]:
    """Return enhanced and base on all rows, by metric."""
    out: dict[str, float | None] = {}
    for row in comparison.rows:
        if row["slice"] == "all":
            out[row["metric"]] = row["enhanced"]
            if row["metric"] == comparison.primary and row["base"] != row["enhanced"]:
                out[f"base {row['metric']}"] = row["base"]
    return out


def _with_names(table: pa.Table, node: Evaluate, ctx: StepContext) -> pa.Table:
    n = table.num_rows
    table = table.add_column(0, "method", pa.array([node.model.slug] * n))
    table = table.add_column(1, "base_method", pa.array([node.base.slug if node.base else None] * n,
                                                        pa.string()))  # fmt: skip
    return table.add_column(2, "task", pa.array([node.model.log.task] * n))


def repeats(tables: Mapping[Any, pa.Table]) -> list[str]:
    """Say how many test rows are no targets because their user had met the item before."""
    from ...evaluate.predict import stamp_of

    stamps = [stamp_of(t) for t in tables.values()]
    dropped = max((int(s.get("repeated_targets", 0)) for s in stamps
                   if s.get("repeats") == "drop"), default=0)  # fmt: skip
    told = f"Dropped: {dropped:,} test rows whose user had met the item before; they are no targets"
    return [told] if dropped else []


def cautions(node: Evaluate, data: Any) -> list[str]:
    """Return what the settings of a model that is compared should have been on this log."""
    every = {train.name: train.backbone.caution(data) for _, train, _ in arms_of(node)}
    return [f"{name}: {told}" for name, told in every.items() if told]


def _notes(node: Evaluate, cells: dict[Any, Cell]) -> list[str]:
    seconds = sum(c.record["seconds"] for c in cells.values())
    notes = [f"Cost: {len(cells)} trainings, {seconds:.0f} s in all"]
    if extended := sum("extended_from" in c.record for c in cells.values()):
        notes.append(f"{extended} of these were trained before items were added that nobody has "
                     "met; their weights stand")  # fmt: skip
    if warm := sum("warm_start_from" in c.record for c in cells.values()):
        notes.append(f"{warm} of these started from the weights of the version before")
    if node.base is None:
        notes.append("A baseline: base and enhanced are the same model, so differences are zero")
    if node.template is not None:
        same = cells[("template", 0)].record["key"] == cells[(ENHANCED, 0)].record["key"]
        if same:
            notes.append("The template control saw the same inputs as the method: no LLM answers "
                         "were used on this data set")  # fmt: skip
    return notes


def _teachers(node: Evaluate, ctx: StepContext) -> list[str]:
    """Say who taught a distilled model; no language model must not pass for one."""
    taught = [n for n in node.model.inputs if isinstance(n, Teach)]
    return [f"Teacher ({n.name}): {ctx.manifest(n).info['teacher']}" for n in taught]


def _checks(
    node: Evaluate, comparison: Any, cells: dict[tuple[str, int | None], Cell]
) -> tuple[CheckOutcome, ...]:
    import math

    values = [r["enhanced"] for r in comparison.rows if r["slice"] == "all"]
    finite = all(v is None or math.isfinite(v) for v in values) and values[0] is not None
    return (
        CheckOutcome("metrics_finite", finite, True, {"metrics": len(values)}),
        _control(node, comparison),
        _budget(node, cells),
    )


def _control(node: Evaluate, comparison: Any) -> CheckOutcome:
    """Hold rows without their meaning against the base and the method, beyond what is noise.

    Over the base a control is shown better where the interval over users and, of several seeds,
    their spread lie above zero; the method is better where the interval over users does.
    """
    from ...encode.invariants import permutation_control

    head = comparison.headline
    arms = [c for c in WITHOUT_MEANING if c in comparison.over_base]
    if node.base is None or not arms:
        return CheckOutcome("permutation_control", True, False, {"controls": "none"})
    values, noise = {}, {}
    for arm in arms:
        gain, spread = comparison.over_base[arm]
        low = head[f"control_{arm}_low"]
        if gain is None or gain.low is None or low is None:
            why = f"{comparison.primary} of {arm} has no interval"
            return CheckOutcome("permutation_control", False, False, {"why": why})
        values[arm] = gain.other
        over = gain.difference - gain.low
        if spread.low is not None and not spread.exact:
            over = max(over, spread.mean - spread.low)
        noise[arm] = over, head[f"control_{arm}_difference"] - low
    check = permutation_control(head["base"], head["enhanced"], values, noise)
    return CheckOutcome(check.name, check.passed, False, check.details)


def _budget(node: Evaluate, cells: dict[tuple[str, int | None], Cell]) -> CheckOutcome:
    """Compare what the trainings of base and method were given and used, as their cells say."""
    from ...encode.invariants import matched_budget

    if node.base is None:
        return CheckOutcome("matched_budget", True, True, {"alone": True})
    arms = [[c.record for (name, _), c in cells.items() if name == a] for a in (BASE, ENHANCED)]
    check = matched_budget(*budgets(*arms, node.base.log.name))
    return CheckOutcome(check.name, check.passed, True, check.details)
