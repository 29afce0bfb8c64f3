"""A comparison of two versions as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..trace.text import number
from .form import RowDiff, VectorDrift, VersionDiff

_LONG = 300
_WEIGHTS = 20


def render(diff: VersionDiff) -> str:
    """Return the comparison as lines."""
    lines = [f"{diff.asset} of {diff.dataset}: {diff.before} -> {diff.after}",
             f"made {diff.made[0]} and {diff.made[1]}"]  # fmt: skip
    if diff.same:
        lines.append("both are the same version: nothing differs")
    for facts in diff.facts:
        lines += ["", facts.title]
        for name, (one, two) in facts.changes.items():
            lines.append(f"  {name}: {_cut(one)} -> {_cut(two)}")
    if diff.rows is not None:
        lines += ["", *_rows(diff.rows)]
    if diff.vectors is not None:
        lines += ["", *_vectors(diff.vectors)]
    if diff.metrics:
        lines += ["", "metrics (test)"]
        for m in diff.metrics:
            gain = ""
            if m.difference_after is not None:
                was, now = number(m.difference_before), number(m.difference_after)
                gain = f"; to its base {was} -> {now}"
            lines.append(f"  {m.metric} {m.slice}: {number(m.before)} -> {number(m.after)}{gain}")
    if diff.weights:
        lines += ["", "arrays, those that moved most first"]
        for w in diff.weights[:_WEIGHTS]:
            if w.shape[0] != w.shape[1]:
                lines.append(f"  {w.name}: shape {w.shape[0]} -> {w.shape[1]}")
            else:
                lines.append(
                    f"  {w.name} {w.shape[1]}: norm {number(w.norm_before)} -> "
                    f"{number(w.norm_after)}, moved {number(w.relative)} of it, cosine "
                    f"{number(w.cosine)}"
                )
        if len(diff.weights) > _WEIGHTS:
            lines.append(f"  and {len(diff.weights) - _WEIGHTS} more; --json has all")
    return "\n".join(lines)


def _rows(rows: RowDiff) -> Iterator[str]:
    by = f"by {', '.join(rows.key)}" if rows.key else "as whole rows: no columns identify one"
    yield f"rows: {rows.before} -> {rows.after}, compared {by}"
    yield (f"  {rows.added} added, {rows.removed} removed, {rows.changed} changed, "
           f"{rows.same} the same")  # fmt: skip
    for word, names in (("added", rows.columns_added), ("removed", rows.columns_removed)):
        if names:
            yield f"  columns {word}: {', '.join(names)}"
    for name, count in rows.by_column.items():
        yield f"  {name}: {count} rows changed"
    for change in rows.changed_examples:
        title = f" ({change.title})" if change.title else ""
        yield f"  changed {_keyed(change.key)}{title}"
        for name, (one, two) in change.columns.items():
            yield f"    {name}: {_cut(one)}"
            yield f"    {' ' * len(name)}> {_cut(two)}"
    for word, examples in (("added", rows.added_examples), ("removed", rows.removed_examples)):
        for row in examples:
            yield f"  {word} {_keyed(row)}"


def _vectors(v: VectorDrift) -> Iterator[str]:
    yield f"vectors: {v.before} -> {v.after} rows; {v.added} added, {v.removed} removed"
    yield (f"  text gained {v.known_gained}, lost {v.known_lost}; compared {v.compared} rows with "
           f"a vector in both")  # fmt: skip
    if v.incomparable:
        yield f"  not comparable: {v.incomparable}"
        return
    share = f"{100 * (v.unmoved or 0):.1f} % did not move"
    yield (f"  cosine per row: mean {number(v.mean)}, 5th percentile {number(v.p5)}, least "
           f"{number(v.least)}; {share}")  # fmt: skip
    if v.texts_changed is not None:
        yield (f"  texts changed of {v.texts_changed} rows; mean cosine of the others "
               f"{number(v.mean_same_text)}")  # fmt: skip
    if v.overlap is not None:
        yield f"  ten nearest neighbours kept: {100 * v.overlap:.1f} % (over {v.sampled} rows)"
    for m in v.moved:
        text = {True: ", its text changed", False: ", the same text", None: ""}[m.text_changed]
        yield f"  moved {m.cosine:.4f} {m.id} {m.title or ''}{text}"


def _keyed(row: Mapping[str, Any]) -> str:
    return _cut(", ".join(f"{k} {v}" for k, v in row.items() if v is not None))


def _cut(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _LONG else f"{text[:_LONG]} ..."
