"""What an evaluation reports beside its gains: lists as a whole, curves, cold candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.training import TEST, TrainingData
from ..plan import Generate, Table, Train, walk
from .cell_tables import AMONG, LIST, among, explored, lists
from .cells import Cell
from .context import StepContext
from .list_kinds import Kinds

RESAMPLES = 2000  # of curves and cold candidates, which no claim rests on
COLD_METRICS = ("ndcg@10", "recall@20", "ndcg@20")
PAIRS = (("head_items", "tail_items"), ("head_users", "tail_users"), ("warm_warm", "cold_items"))


def per_tokens(model: Train, comparison: Any, ctx: StepContext) -> str:
    """Return what the method gained per million tokens that its language model read and wrote.

    Of each prompt task the version that cost most counts: a later one finds answers in the store.
    Empty where no tokens were counted (recorded answers, templates) and for a baseline.
    """
    tokens = 0
    for node in walk([model]):
        if isinstance(node, Generate):
            found = ctx.manifests.versions(ctx.dataset, node.name)
            tokens += max((_tokens(m.counts) for m in found), default=0)
    gain = comparison.headline["difference"]
    if not tokens or gain is None or comparison.power is None:
        return ""
    return (
        f"Language model: {tokens:,} tokens; {comparison.primary} {gain / tokens * 1e6:+.4f} per "
        "million of them"
    )


Cells = Mapping[tuple[str, int | None], Cell]
TREE = "hierarchy"  # the table of a method that grows a tree


@dataclass(frozen=True)
class Aside:
    """``beyond`` maps arms to values of their lists; ``grids`` are tables of the report."""

    beyond: dict[str, dict[str, float | None]] = field(default_factory=dict)
    grids: tuple[Any, ...] = ()


def vector_grid(model: Train, data: TrainingData, ctx: StepContext) -> list[Any]:
    """Return what the item vectors that ``model`` reads say without training; [] without any."""
    from ..data.vectors import VectorTable
    from ..evaluate.probes import attribute, by_position, retrieval, together, uniformity
    from ..evaluate.report import Grid, number

    if data.label is not None or data.task == "rating":
        return []
    rows = []
    for node in model.inputs:
        table = None if node == model.log else ctx.load(node)
        if isinstance(table, VectorTable) and table.entity == "item":
            x = by_position(table, data)
            real = x[x.any(axis=1)]
            values = retrieval(x, data, LIST), together(x, data), uniformity(real)
            name, held = category_of(model, data, ctx)
            read = attribute(x, held) if name else None
            told = f"{number(read[0])} ({number(read[1])})" if read else "-"
            rows.append((node.name, f"{len(real):,}", *map(number, values), told))
    columns = ("vectors", "items", f"recall@{LIST}", "co-occurrence", "uniformity", "category")
    note = (
        f"Recall@{LIST}: of the next item among the neighbours of the newest. Co-occurrence: "
        "Spearman's correlation of cosine and held-out co-occurrence. Category: how often a "
        "logistic regression on the frozen vectors names an item's first category, in five folds "
        "(how often the most common one is right). No recommender is trained."
    )
    return [Grid("Item vectors by themselves", columns, tuple(rows), note)] if rows else []


def category_of(
    model: Train, data: TrainingData, ctx: StepContext
) -> tuple[str, list[str | None]]:
    """Return the first category field and its first value by item position; ("", []) without."""
    items = next((n for n in walk([model]) if isinstance(n, Table) and n.table == "items"), None)
    told = next((name for name, kind in ctx.field_kinds.items() if kind == "category"), "")
    table = ctx.load(items) if items is not None and told else None
    if table is None or told not in table.column_names:
        return "", []
    values = [v[0] if isinstance(v, list) and v else v for v in table[told].to_pylist()]
    out: list[str | None] = [None] * (data.n_items + 1)
    for at, value in zip(data.items.index(table["item_id"].to_pylist()), values, strict=True):
        out[at] = str(value).partition("|")[0].strip() if value else None
    out[0] = None
    return told, out


def _tokens(counts: Mapping[str, Any]) -> int:
    return sum(int(counts.get(name) or 0) for name in ("tokens_in", "tokens_out"))


class _Counts:
    """Popularity, to which a hit is held that is to be a surprise."""

    def __init__(self, data: TrainingData) -> None:
        self.scores_of_all = data.train_counts.astype(np.float32)

    def scores(self, users: np.ndarray, histories: Sequence[np.ndarray]) -> np.ndarray:
        return np.tile(self.scores_of_all, (len(users), 1))


def beside(
    cells: Cells, trains: Mapping[str, Train], data: TrainingData, comparison: Any,
    kinds: Kinds | None = None,
) -> Aside:  # fmt: skip
    """Return what ``cells`` of rankings say beside ``comparison``; ``trains`` maps arms to nodes.

    Lists are those of each arm's first seed; with ``kinds`` they are told by category as well.
    """
    from ..evaluate.beyond import stability

    grids = [_gaps(comparison)]
    first: dict[str, Cell] = {}
    for (arm, _), cell in cells.items():
        if arm in trains:
            first.setdefault(arm, cell)
    if data.label is not None:
        grids += [_calibration(first, data), _reliability(first), _ratio(comparison)]
    if data.label is not None or data.task == "rating":
        return Aside({}, tuple(g for g in grids if g is not None))
    tops = {arm: lists(cell, trains[arm], data) for arm, cell in first.items()}
    beyond = _beyond(tops, data, kinds)
    for arm in [a for a in ("base", "enhanced") if a in tops]:
        more = [c for (name, _), c in cells.items() if name == arm and c is not first[arm]]
        if more:
            other = lists(more[0], trains[arm], data)
            beyond[arm]["stability"] = stability(tops[arm], other)
    grids.append(_curves(cells, data, comparison.primary))
    if data.info.get("protocol") == "cold_item":
        grids.append(_candidates(cells, trains, data))
    grids.append(_exploration(first, trains, data))
    return Aside(beyond, tuple(g for g in grids if g is not None))


def _exploration(
    first: Mapping[str, Cell], trains: Mapping[str, Train], data: TrainingData
) -> Any:
    """Return lists explored along the tree that a method writes; None where none does."""
    from ..evaluate.report import Grid, number

    grown = [a for a in first if any(getattr(p, "writes", "") == TREE for p in trains[a].parts)]
    if not grown:
        return None
    tables = {arm: explored(first[arm], trains[arm], data) for arm in grown}
    names = tables[grown[0]].column_names
    rows = [
        (arm, f"{row['temperature']:g}", str(row["layer"]), *(number(row[n]) for n in names[2:]))
        for arm, table in tables.items() for row in table.to_pylist()
    ]  # fmt: skip
    note = (
        "Temperature: the share of each list, from its end, that gives way to unseen items drawn "
        "below the user's ancestor at the layer (0 is the root: any item)."
    )
    return Grid("Exploration along the tree", ("arm", *names), tuple(rows), note)


def _beyond(
    tops: Mapping[str, Any], data: TrainingData, kinds: Kinds | None
) -> dict[str, dict[str, float | None]]:
    from ..evaluate.beyond import category_summary, serendipity, stability, summary
    from ..evaluate.predict import top_k_lists

    usual = top_k_lists(_Counts(data), data, LIST)
    rows = data.split == TEST
    user, item = data.user[rows], data.item[rows]
    base = tops.get("base")
    return {
        arm: {
            **summary(top, data), "serendipity": serendipity(top, usual, user, item),
            **(category_summary(top, kinds.membership, data) if kinds else {}),
            **({"overlap_with_base": stability(top, base)} if base and arm != "base" else {}),
        }
        for arm, top in tops.items()
    }  # fmt: skip


def _gaps(comparison: Any) -> Any:
    """Return the table of gaps between groups on the primary metric; None without groups."""
    from ..evaluate.beyond import gap
    from ..evaluate.report import Grid, number

    by = {r["slice"]: r for r in comparison.rows if r["metric"] == comparison.primary}
    rows = []
    for pair in PAIRS:
        for arm in ("base", "enhanced"):
            difference, ratio = gap([by[s][arm] if s in by else None for s in pair])
            if difference is not None:
                rows.append((" and ".join(pair), arm, number(difference), number(ratio, 3)))
    if not rows:
        return None
    title = f"Gaps between groups in {comparison.primary}"
    return Grid(title, ("groups", "arm", "difference", "smaller over larger"), tuple(rows))


def _calibration(first: Mapping[str, Cell], data: TrainingData) -> Any:
    """Return predictions over clicks by slice, and the share of users over whom gAUC is a mean."""
    from ..evaluate.ctr import gauc, predicted_over_observed
    from ..evaluate.report import Grid, number
    from ..evaluate.slices import standard_slices

    rows = []
    for arm, cell in first.items():
        table = cell.table("test")
        user, label, p = (table[c].to_numpy() for c in ("user", "label", "p"))
        for s in standard_slices(data):
            keep = s.rows(table)
            if keep.any():
                ratio = predicted_over_observed(label[keep], p[keep])
                share = gauc(user[keep], label[keep], p[keep])[1]
                rows.append((arm, s.name, f"{keep.sum():,}", number(ratio, 3), number(share, 3)))
    columns = ("arm", "slice", "rows", "predicted / observed", "users of gAUC")
    note = "Users of gAUC: the share with both classes. First seed."
    return Grid("Calibration by slice", columns, tuple(rows), note)


def _reliability(first: Mapping[str, Cell]) -> Any:
    from ..evaluate.ctr import reliability
    from ..evaluate.report import Grid, number

    rows = []
    for arm in [a for a in ("base", "enhanced") if a in first]:
        table = first[arm].table("test")
        bins = reliability(table["label"].to_numpy(), table["p"].to_numpy())
        rows += [(arm, f"{int(n):,}", number(mean), number(rate)) for n, mean, rate in bins]
    columns = ("arm", "rows", "mean prediction", "observed rate")
    return Grid("Reliability", columns, tuple(rows), "Bins of equal mass; ECE is taken over these.")


def _ratio(comparison: Any) -> Any:
    """Return the AUC by both formulas that papers call relative improvement."""
    from ..evaluate.ctr import AUCS, auc_ratio
    from ..evaluate.report import Grid, percent

    rows = [
        (r["metric"], percent(r["relaimpr"]), percent(auc_ratio(r["enhanced"], r["base"])))
        for r in comparison.rows
        if r["slice"] == "all" and r["metric"] in AUCS and r["relaimpr"] is not None
    ]
    columns = ("metric", "(AUC - 0.5) / (base - 0.5) - 1", "AUC / base - 1")
    return Grid("Relative improvement by formula", columns, tuple(rows)) if rows else None


def _curves(cells: Cells, data: TrainingData, metric: str) -> Any:
    from ..evaluate.compare import compare
    from ..evaluate.report import Grid, between, number
    from ..evaluate.slices import curves

    arms = {arm for arm, _ in cells} & {"base", "enhanced"}
    tables = {key: cell.table("test") for key, cell in cells.items() if key[0] in arms}
    found = compare(
        tables, base="base" if "base" in arms else "enhanced", slices=curves(data),
        metrics=[metric], controls=[], resamples=RESAMPLES,
    )  # fmt: skip
    rows = tuple(
        (r["slice"], f"{r['targets']:,}", number(r["base"]), number(r["enhanced"]),
         number(r["difference"], signed=True), between(r["low"], r["high"]))
        for r in found.rows if r["slice"] != "all" and r["targets"]
    )  # fmt: skip
    columns = ("training rows", "targets", "base", "enhanced", "difference", "95 % interval")
    note = "By training interactions of the target and by training rows of the user."
    return Grid(f"{metric} in five steps", columns, rows, note)


def _candidates(cells: Cells, trains: Mapping[str, Train], data: TrainingData) -> Any:
    """Return values among cold and among warm items alone, for every arm that has its weights."""
    from ..evaluate.compare import compare
    from ..evaluate.report import Grid, between, number

    rows = []
    for kind in AMONG:
        tables = {
            key: among(cell, trains[key[0]], data, kind)
            for key, cell in cells.items() if key[0] in trains
        }  # fmt: skip
        base = "base" if any(arm == "base" for arm, _ in tables) else "enhanced"
        arms = sorted({arm for arm, _ in tables} - {base})
        for arm in arms or [base]:
            part = {k: t for k, t in tables.items() if k[0] in (base, arm)}
            found = compare(
                part, base=base, enhanced=arm, controls=[], metrics=COLD_METRICS,
                resamples=RESAMPLES,
            )  # fmt: skip
            rows += [
                (kind, arm, r["metric"], number(r["base"]), number(r["enhanced"]),
                 number(r["difference"], signed=True), between(r["low"], r["high"]))
                for r in found.rows
            ]  # fmt: skip
    columns = ("candidates", "arm", "metric", "base", "arm's value", "difference", "95 % interval")
    note = "Candidates and targets are cold (or warm) items alone; other tables rank all items."
    return Grid("Cold and warm candidates", columns, tuple(rows), note)
