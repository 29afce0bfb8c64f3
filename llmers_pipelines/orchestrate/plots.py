"""Small pictures of a new version: loss and metric by epoch, and how scores are distributed.

They lie beside the artifact (``plots/<name>.svg``), drawn once when it is stored. The UI shows a
picture in its place only while the entry has fewer than 1,000 characters, and every entry stays in
the event log: so they are drawn by hand, with few points.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow.parquet as pq

from ..data.vectors import VectorTable
from ..plan import Derive, Embed, Generate, Node, Teach, Train, Tune

FOLDER = "plots"
_WIDTH, _HEIGHT, _TOP, _FOOT = 300, 75, 16, 104  # pixels
_POINTS, _BINS = 26, 25
_MOST = 200_000  # values that one distribution is drawn of
_BLUE, _BROWN = "steelblue", "chocolate"
_SAFE = "/:=,'.;-"


def draw(node: Node, folder: Path) -> list[str]:
    """Draw what there is to see of the artifact in ``folder``; return the names."""
    drawn = {name: svg for name, svg in _pictures(node, folder).items() if svg}
    for name, svg in drawn.items():
        (folder / FOLDER).mkdir(exist_ok=True)
        temporary = folder / FOLDER / f".{name}-{os.getpid()}"
        temporary.write_text(svg, encoding="utf-8")
        os.replace(temporary, folder / FOLDER / f"{name}.svg")
    return list(drawn)


def shown(folder: Path) -> dict[str, str]:
    """Return name -> the picture as Markdown, of those that lie beside an artifact."""
    return {
        path.stem: inline(path.read_text(encoding="utf-8"), path.stem)
        for path in sorted((folder / FOLDER).glob("*.svg"))
    }


def inline(svg: str, title: str) -> str:
    """Return a picture as Markdown that needs no file."""
    return f"![{title}](data:image/svg+xml,{quote(svg, safe=_SAFE)})"


def _pictures(node: Node, folder: Path) -> dict[str, str]:
    if isinstance(node, Train):
        return {"epochs": curve(folder), "scores": _predictions(folder)}
    if isinstance(node, Tune):
        losses = json.loads((folder / "losses.json").read_text())["losses"]
        return {"epochs": _curve([{**e, "train_loss": e["loss"]} for e in losses])}
    if isinstance(node, Embed) or (isinstance(node, Derive) and node.how.output == "vectors"):
        return {"scores": _cosines(folder)}
    if isinstance(node, Generate):
        return {"scores": _lengths(folder)}
    if isinstance(node, Teach):
        return {"scores": _column(folder, ("distance",), "distance of a ranked item")}
    if isinstance(node, Derive):
        return {"scores": _column(folder, ("cos",), "cosine of a neighbour")}
    return {}


def curve(folder: Path) -> str:
    """Return loss and validation metric by epoch; "" where there was at most one."""
    return _curve(json.loads((folder / "training.json").read_text())["epochs"])


def _curve(epochs: list[dict[str, Any]]) -> str:
    if len(epochs) < 2:
        return ""
    first, last = epochs[0]["epoch"], epochs[-1]["epoch"]
    parts = []
    for n, (key, told, color) in enumerate(
        (("train_loss", "loss", _BLUE), ("valid", "validation", _BROWN))
    ):
        points = [(e["epoch"], e[key]) for e in epochs if e.get(key) is not None]
        if len(points) < 2:
            continue
        points = points[:: -(-len(points) // _POINTS)] + points[-1:]
        low, high = (f(v for _, v in points) for f in (min, max))
        wide, high_by = _WIDTH / (last - first), _HEIGHT / ((high - low) or 1.0)
        line = ",".join(
            f"{round((epoch - first) * wide)},{round(_TOP + (high - value) * high_by)}"
            for epoch, value in points
        )
        parts.append(f"<polyline points='{line}' fill='none' stroke='{color}'/>")
        parts.append(_text(150 * n, 10, f"{told} {points[0][1]:.3g} to {points[-1][1]:.3g}", color))
    return _svg([*parts, _text(0, _FOOT, f"{last} epochs")])


def _predictions(folder: Path) -> str:
    """Ranks of the validation targets, or predicted clicks by label."""
    path = folder / "valid.parquet"
    if not path.is_file():
        return ""
    table = pq.read_table(path)
    names = table.column_names
    if "rank" in names:
        ranks = np.maximum(1.0, _finite(table["rank"]))
        return histogram([(ranks, "", _BLUE)], "rank of the validation target", log=True)
    value = next((n for n in ("p",) if n in names), "")
    if not value or "label" not in names:
        return ""
    label = np.asarray(table["label"], float) > 0.5
    scores = np.asarray(table[value], float)
    return histogram(
        [(scores[~label], "label 0", _BROWN), (scores[label], "label 1", _BLUE)],
        "predicted probability on validation",
    )  # fmt: skip


def _cosines(folder: Path) -> str:
    vectors = VectorTable.load(folder)
    rows = np.flatnonzero(vectors.mask)
    if len(rows) < 3:
        return ""
    rng = np.random.default_rng(0)
    left, right = (rng.choice(rows, 20_000) for _ in range(2))
    keep = left != right
    a, b = (np.asarray(vectors.vectors[r[keep]], np.float32) for r in (left, right))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(1)[norms > 0] / norms[norms > 0]
    return histogram([(cosines, "", _BLUE)], "cosine of random pairs of rows")


def _lengths(folder: Path) -> str:
    table = pq.read_table(folder / "rows.parquet")
    if "text" not in table.column_names:
        return ""
    lengths = [len(t.split()) for t in table["text"].to_pylist() if t]
    return histogram([(np.asarray(lengths, float), "", _BLUE)], "words of an answer")


def _column(folder: Path, names: Sequence[str], title: str) -> str:
    path = folder / "rows.parquet"
    if not path.is_file():
        return ""
    schema = pq.read_schema(path).names
    name = next((n for n in names if n in schema), "")
    if not name:
        return ""
    values = _finite(pq.read_table(path, columns=[name])[name])
    return histogram([(values, "", _BLUE)], title or name)


def _finite(column: Any) -> np.ndarray:
    values = np.asarray(column.to_numpy(zero_copy_only=False), float)
    values = values[np.isfinite(values)]
    return values[:: max(1, len(values) // _MOST)]


def histogram(
    groups: Sequence[tuple[np.ndarray, str, str]], title: str, *, log: bool = False
) -> str:
    """Return the shares of values by bin; ``groups``: (values, label, colour)."""
    groups = [g for g in groups if len(g[0])]
    every = np.concatenate([g[0] for g in groups]) if groups else np.empty(0)
    if len(every) < 2:
        return ""
    low, high = float(every.min()), float(every.max())
    top = high if high > low else low + 1.0
    bins = np.geomspace(low, top, _BINS + 1) if log else np.linspace(low, top, _BINS + 1)
    shares = [np.histogram(values, bins)[0] / len(values) for values, _, _ in groups]
    highest = max(float(share.max()) for share in shares)
    step, floor, parts = _WIDTH // _BINS, _TOP + _HEIGHT, []
    for n, ((_, label, color), share) in enumerate(zip(groups, shares, strict=True)):
        tops = "".join(f"V{round(floor - v / highest * _HEIGHT)}h{step}" for v in share)
        parts.append(f"<path d='M0,{floor}{tops}V{floor}z' fill='{color}' opacity='.6'/>")
        if label:
            parts.append(_text(200 + 55 * n, _FOOT, label, color))
    scale = ", log scale" if log else ""
    parts.append(_text(0, 10, f"{title}, up to {highest:.0%} a bin"))
    parts.append(_text(0, _FOOT, f"{low:.3g} to {high:.3g}{scale}"))
    return _svg(parts)


def _text(x: int, y: int, text: str, color: str = "dimgray") -> str:
    return f"<text x='{x}' y='{y}' fill='{color}'>{text}</text>"


def _svg(parts: Sequence[str]) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{_WIDTH}' height='{_FOOT + 4}' "
        f"font-size='11' font-family='sans-serif'>{''.join(parts)}</svg>"
    )
