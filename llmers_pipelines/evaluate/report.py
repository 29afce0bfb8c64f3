"""Reports from comparison rows: Markdown, terminal text, and a picture of the intervals."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..data.training import TrainingData
from .beyond import NOTES
from .compare import Comparison, correct_primaries

ABSENT = "n/a"
FOLD_IN = (
    "at validation every model sees the user's train rows; at test it sees train and validation "
    "rows (fold-in), base, enhanced and controls alike"
)
CANDIDATES = "all items that the user has not seen; ties count half; no sampled negatives"
LABELS = {"labels_seen": "labels seen"}


@dataclass(frozen=True)
class Header:
    """What a reader must know before the first number."""

    title: str
    dataset: str
    task: str
    users: int
    items: int
    interactions: int
    protocol: str
    fold_in: str = FOLD_IN
    candidates: str = CANDIDATES
    versions: Mapping[str, str] = field(default_factory=dict)  # data, code, LLM, encoder, prompt
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: TrainingData, *, title: str, dataset: str, **more: Any) -> Header:
        """Return a header with the counts, protocol and data version of ``data``."""
        versions = {"data": data.content_hash(), **more.pop("versions", {})}
        if data.label is not None:
            more = {"candidates": "the logged impressions of the split", **more}
        elif data.task == "rating":
            more = {"candidates": "none: the ratings of the split are predicted", **more}
        return cls(
            title, dataset, data.task, data.n_users, data.n_items, len(data.user),
            str(data.info.get("protocol", "not recorded")), versions=versions, **more,
        )  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """A table of finished strings; the first column is text, the others are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def markdown(
    comparison: Comparison,
    header: Header,
    *,
    beyond: Mapping[str, Mapping[str, float | None]] | None = None,
    more: Sequence[Grid] = (),
) -> str:
    """Return the report of one comparison. ``beyond`` maps arms to beyond-accuracy values."""
    lines = [f"# {header.title}", "", *_header_lines(comparison, header), ""]
    for grid in (*grids(comparison, beyond), *more):
        lines += [f"## {grid.title}", "", *_markdown_table(grid), ""]
        lines += [grid.note, ""] if grid.note else []
    return "\n".join(lines)


def text(comparison: Comparison, header: Header, *, width: int = 140, color: bool = False) -> str:
    """Return the report for a terminal: drawn with rich where it is installed, else aligned."""
    lines = [header.title, *(s.removeprefix("- ") for s in _header_lines(comparison, header)), ""]
    shown = grids(comparison)
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        return "\n".join([*lines, *(line for g in shown for line in _plain_table(g))])
    sink = io.StringIO()
    console = Console(
        file=sink, width=width, force_terminal=color, color_system="standard" if color else None
    )
    for grid in shown:
        table = Table(title=grid.title, title_justify="left", caption=grid.note or None)
        for i, column in enumerate(grid.columns):
            table.add_column(column, justify="right" if i else "left")
        for row in grid.rows:
            table.add_row(*row)
        console.print(table)
    return "\n".join(lines) + "\n" + sink.getvalue()


def leaderboard(comparisons: Mapping[str, Comparison], *, title: str = "Leaderboard") -> Grid:
    """Return one row per method, best first, on the primary metric of all rows."""
    metric = {c.primary for c in comparisons.values()}
    if len(metric) > 1:
        raise ValueError(f"methods with different primary metrics {sorted(metric)} do not compare")
    corrected = dict(zip(comparisons, correct_primaries(list(comparisons.values())), strict=True))
    ordered = sorted(comparisons, key=lambda n: -(comparisons[n].headline["enhanced"] or 0.0))
    rows = []
    for name in ordered:
        c, h = comparisons[name], comparisons[name].headline
        rows.append((
            name, spread(h["base"], h["base_sd"]), spread(h["enhanced"], h["enhanced_sd"]),
            number(h["difference"], signed=True), between(h["low"], h["high"]),
            percent(h["relative"]), p_value(corrected[name]), str(h["seeds"]),
            ", ".join([c.verdict.status, *(_label(m) for m in c.marks)]),
        ))  # fmt: skip
    columns = (
        "method", "base", "enhanced", "difference", "95 % interval", "relative", "corrected p",
        "seeds", "lift",
    )  # fmt: skip
    note = f"Metric: {next(iter(metric), ABSENT)}. Corrected p: Holm over the methods."
    return Grid(title, columns, tuple(rows), note)


def grids(
    comparison: Comparison, beyond: Mapping[str, Mapping[str, float | None]] | None = None
) -> list[Grid]:
    """Return the report's tables: all metrics, slices of the primary metric, controls, slices."""
    overall = [r for r in comparison.rows if r["slice"] == "all"]
    primary = [r for r in comparison.rows if r["metric"] == comparison.primary]
    formulas = "Relative = enhanced / base - 1."
    if any(r["relaimpr"] is not None for r in comparison.rows):
        formulas += " RelaImpr = (AUC enhanced - 0.5) / (AUC base - 0.5) - 1."
    correction = (
        f" Corrected p: {comparison.primary} over all rows was declared as primary and is tested "
        "alone; all other rows form one family (Holm)."
    )
    out = [
        _gain_grid("All rows", "metric", overall, formulas + correction),
        _gain_grid(f"{comparison.primary} by slice", "slice", primary),
        *([_arm_grid(comparison, primary)] if comparison.controls or comparison.references else []),
        Grid(
            "Slices", ("slice", "members", "users", "targets", "share of targets", "rule"),
            tuple(
                (str(s["slice"]), _count(s["members"]), _count(s["users"]), _count(s["targets"]),
                 percent(s["share"], signed=False), str(s["rule"]))
                for s in comparison.slices
            ),
        ),
    ]  # fmt: skip
    if beyond:
        names = tuple(dict.fromkeys(n for values in beyond.values() for n in values))
        rows = [(arm, *(number(v.get(n)) for n in names)) for arm, v in beyond.items()]
        note = " ".join(NOTES[n] for n in names if n in NOTES)
        out.append(Grid("Beyond accuracy", ("arm", *names), tuple(rows), note))
    return out


def interval_plot(comparison: Comparison) -> bytes:
    """Return a PNG: the gain on the primary metric over the base, by slice, and over the controls
    on all rows, with 95 % intervals over users. Slices without an interval are left out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [
        (f"{r['slice']} (n={r['users']:,})", r["difference"], r["low"], r["high"], "#335c81")
        for r in comparison.rows if r["metric"] == comparison.primary
    ]  # fmt: skip
    first = comparison.headline
    shown += [
        (f"all, over {n}", *(first[f"control_{n}_{k}"] for k in ("difference", "low", "high")),
         "#b3672b")
        for n in comparison.controls
    ]  # fmt: skip
    shown = [row for row in reversed(shown) if None not in row]
    figure = Figure(figsize=(6.4, 1.0 + 0.35 * max(len(shown), 1)), layout="constrained")
    axes = figure.add_subplot()
    for place, (_, middle, low, high, color) in enumerate(shown):
        axes.plot([low, high], [place, place], color=color, linewidth=2)
        axes.plot([middle], [place], marker="o", color=color)
    axes.axvline(0, color="#888888", linewidth=1)
    axes.set_ylim(-0.6, max(len(shown), 1) - 0.4)
    axes.set_yticks(range(len(shown)), [row[0] for row in shown])
    axes.set_xlabel(f"gain in {comparison.primary}, 95 % interval over users")
    sink = io.BytesIO()
    FigureCanvasAgg(figure).print_png(sink)
    return sink.getvalue()


def number(value: Any, digits: int = 4, *, signed: bool = False) -> str:
    """Return a finite number as text, anything else as ``n/a``."""
    if value is None or not math.isfinite(value):
        return ABSENT
    return f"{value:{'+' if signed else ''}.{digits}f}"


def percent(value: Any, *, signed: bool = True) -> str:
    shown = number(None if value is None else 100 * value, 1, signed=signed)
    return shown if shown == ABSENT else f"{shown} %"


def p_value(value: Any) -> str:
    shown = number(value)
    return "<0.0001" if shown == "0.0000" else shown


def between(low: Any, high: Any) -> str:
    a, b = number(low, signed=True), number(high, signed=True)
    return ABSENT if ABSENT in (a, b) else f"[{a}, {b}]"


def spread(value: Any, sd: Any) -> str:
    middle, deviation = number(value), number(sd)
    return middle if ABSENT in (middle, deviation) else f"{middle} ± {deviation}"


def _header_lines(comparison: Comparison, header: Header) -> list[str]:
    labels = dict.fromkeys([
        *(_label(x) for x in (*comparison.marks, *header.labels)),
        *(["exploratory"] if comparison.verdict.status == "exploratory" else []),
    ])
    seeds = ", ".join(str(s) for s in comparison.seeds) or "none (no randomness)"
    return [
        *([f"- Labels: {', '.join(f'*{x}*' for x in labels)}"] if labels else []),
        f"- Data: {header.dataset}, task {header.task}: {header.users:,} users, "
        f"{header.items:,} items, {header.interactions:,} interactions",
        f"- Protocol: {header.protocol}",
        f"- Candidates: {header.candidates}",
        f"- History: {header.fold_in}",
        f"- Seeds: {seeds}",
        f"- Versions: {', '.join(f'{k} {v}' for k, v in header.versions.items()) or ABSENT}",
        *(f"- {note}" for note in header.notes),
        f"- Lift ({comparison.primary}): {comparison.verdict}",
        *([f"- {comparison.power}"] if comparison.power else []),
    ]


def _gain_grid(title: str, key: str, rows: Sequence[Mapping[str, Any]], note: str = "") -> Grid:
    auc = any(r["relaimpr"] is not None for r in rows)
    columns = (
        key, "users", "base", "enhanced", "difference", "95 % interval", "relative",
        *(("RelaImpr",) if auc else ()), "p", "corrected p", "seeds", "seed sd", "lift",
    )  # fmt: skip
    body = [
        (
            str(r[key]), _count(r["users"]), spread(r["base"], r["base_sd"]),
            spread(r["enhanced"], r["enhanced_sd"]), number(r["difference"], signed=True),
            between(r["low"], r["high"]), percent(r["relative"]),
            *((percent(r["relaimpr"]),) if auc else ()), p_value(r["p"]),
            p_value(r["p_corrected"]), str(r["seeds"]), number(r["seed_sd"]), r["claim"],
        )
        for r in rows
    ]  # fmt: skip
    return Grid(title, columns, tuple(body), note)


def _arm_grid(comparison: Comparison, rows: Sequence[Mapping[str, Any]]) -> Grid:
    arms = [("control", n) for n in comparison.controls]
    arms += [("reference", n) for n in comparison.references]
    body = [
        (
            f"{name} ({kind})", str(r["slice"]), number(r[f"{kind}_{name}"]),
            number(r[f"{kind}_{name}_difference"], signed=True),
            between(r[f"{kind}_{name}_low"], r[f"{kind}_{name}_high"]),
        )
        for kind, name in arms for r in rows
    ]  # fmt: skip
    return Grid(
        "Controls and reference baselines",
        ("arm", "slice", comparison.primary, "difference", "95 % interval"), tuple(body),
        "Difference: enhanced minus the control; base minus the reference baseline.",
    )  # fmt: skip


def _markdown_table(grid: Grid) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"

    rule = ["---", *(["---:"] * (len(grid.columns) - 1))]
    return [line(grid.columns), line(rule), *(line(r) for r in grid.rows)]


def _plain_table(grid: Grid) -> list[str]:
    width = [max(map(len, column)) for column in zip(grid.columns, *grid.rows, strict=True)]
    lines = [
        "  ".join(f"{c:>{w}}" if i else f"{c:<{w}}"
                  for i, (c, w) in enumerate(zip(r, width, strict=True)))
        for r in (grid.columns, *grid.rows)
    ]
    return [grid.title, *lines, *([grid.note] if grid.note else []), ""]


def _count(value: Any) -> str:
    return ABSENT if value is None else f"{value:,}"


def _label(mark: str) -> str:
    return LABELS.get(mark, mark)
