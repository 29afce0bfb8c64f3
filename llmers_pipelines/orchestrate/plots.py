"""Small pictures of a new version: loss and metric by epoch, and how scores are distributed.

They lie beside the artifact (``plots/<name>.png``) and are no part of the version.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ..data.vectors import VectorTable
from ..plan import Derive, Embed, Generate, Node, Teach, Train

FOLDER = "plots"
_SIZE = (3.6, 2.0)  # inches at 100 dots: 360 x 200
_MOST = 200_000  # values that one distribution is drawn of
_BLUE, _BROWN = "#335c81", "#b3672b"


def draw(node: Node, folder: Path) -> list[str]:
    """Draw what there is to see of the artifact in ``folder``; return the names."""
    drawn = {name: png for name, png in _pictures(node, folder).items() if png}
    for name, png in drawn.items():
        (folder / FOLDER).mkdir(exist_ok=True)
        temporary = folder / FOLDER / f".{name}-{os.getpid()}"
        temporary.write_bytes(png)
        os.replace(temporary, folder / FOLDER / f"{name}.png")
    return list(drawn)


def shown(folder: Path) -> dict[str, str]:
    """Return name -> the picture as Markdown, of those that lie beside an artifact."""
    return {
        path.stem: inline(path.read_bytes(), path.stem)
        for path in sorted((folder / FOLDER).glob("*.png"))
    }


def inline(png: bytes, title: str) -> str:
    """Return a picture as Markdown that needs no file."""
    return f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})"


def _pictures(node: Node, folder: Path) -> dict[str, bytes]:
    if isinstance(node, Train):
        return {"epochs": curve(folder), "scores": _predictions(folder)}
    if isinstance(node, Embed) or (isinstance(node, Derive) and node.how.output == "vectors"):
        return {"scores": _cosines(folder)}
    if isinstance(node, Generate):
        return {"scores": _lengths(folder)}
    if isinstance(node, Teach):
        return {"scores": _column(folder, ("distance",), "distance of a ranked item")}
    if isinstance(node, Derive):
        return {"scores": _column(folder, ("cos",), "cosine of a neighbour")}
    return {}


def curve(folder: Path) -> bytes:
    """Return loss and validation metric by epoch; b"" where there was at most one."""
    epochs = json.loads((folder / "training.json").read_text())["epochs"]
    if len(epochs) < 2:
        return b""

    def plot(axes: Any) -> None:
        for key, color, side in (("train_loss", _BLUE, axes), ("valid", _BROWN, axes.twinx())):
            points = [(e["epoch"], e[key]) for e in epochs if e.get(key) is not None]
            if points:
                marker = "o" if len(points) < 20 else None
                side.plot(*zip(*points, strict=True), color=color, marker=marker, markersize=3)
            told = {"train_loss": "training loss", "valid": "validation"}[key]
            side.set_ylabel(told, color=color, fontsize=8)
            side.tick_params(labelsize=7)
        axes.set_xlabel("epoch", fontsize=8)
        axes.locator_params(axis="x", integer=True)

    return _picture(plot)


def _predictions(folder: Path) -> bytes:
    """Ranks of the validation targets, or predicted clicks by label."""
    path = folder / "valid.parquet"
    if not path.is_file():
        return b""
    table = pq.read_table(path)
    names = table.column_names
    if "rank" in names:
        ranks = np.maximum(1.0, _finite(table["rank"]))
        return histogram([(ranks, "", _BLUE)], "rank of the validation target", log=True)
    value = next((n for n in ("p",) if n in names), "")
    if not value or "label" not in names:
        return b""
    label = np.asarray(table["label"], float) > 0.5
    scores = np.asarray(table[value], float)
    return histogram(
        [(scores[~label], "label 0", _BROWN), (scores[label], "label 1", _BLUE)],
        "predicted probability on validation",
    )  # fmt: skip


def _cosines(folder: Path) -> bytes:
    vectors = VectorTable.load(folder)
    rows = np.flatnonzero(vectors.mask)
    if len(rows) < 3:
        return b""
    rng = np.random.default_rng(0)
    left, right = (rng.choice(rows, 20_000) for _ in range(2))
    keep = left != right
    a, b = (np.asarray(vectors.vectors[r[keep]], np.float32) for r in (left, right))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(1)[norms > 0] / norms[norms > 0]
    return histogram([(cosines, "", _BLUE)], "cosine of random pairs of rows")


def _lengths(folder: Path) -> bytes:
    table = pq.read_table(folder / "rows.parquet")
    if "text" not in table.column_names:
        return b""
    lengths = [len(t.split()) for t in table["text"].to_pylist() if t]
    return histogram([(np.asarray(lengths, float), "", _BLUE)], "words of an answer")


def _column(folder: Path, names: Sequence[str], title: str) -> bytes:
    path = folder / "rows.parquet"
    if not path.is_file():
        return b""
    schema = pq.read_schema(path).names
    name = next((n for n in names if n in schema), "")
    if not name:
        return b""
    values = _finite(pq.read_table(path, columns=[name])[name])
    return histogram([(values, "", _BLUE)], title or name)


def _finite(column: Any) -> np.ndarray:
    values = np.asarray(column.to_numpy(zero_copy_only=False), float)
    values = values[np.isfinite(values)]
    return values[:: max(1, len(values) // _MOST)]


def histogram(
    groups: Sequence[tuple[np.ndarray, str, str]], title: str, *, log: bool = False
) -> bytes:
    """Return the shares of values by bin; ``groups``: (values, label, colour)."""
    every = np.concatenate([g[0] for g in groups]) if groups else np.empty(0)
    if len(every) < 2:
        return b""
    low, high = float(every.min()), float(every.max())
    high = high if high > low else low + 1.0
    bins = np.geomspace(low, high, 25) if log else np.linspace(low, high, 25)

    def plot(axes: Any) -> None:
        for values, label, color in groups:
            if len(values):
                weights = np.full(len(values), 100.0 / len(values))
                axes.hist(values, bins, weights=weights, color=color, alpha=0.7, label=label)
        if log:
            axes.set_xscale("log")
        if any(g[1] for g in groups):
            axes.legend(fontsize=7)
        axes.set_xlabel(title, fontsize=8)
        axes.set_ylabel("% of rows", fontsize=8)
        axes.tick_params(labelsize=7)

    return _picture(plot)


def _picture(plot: Callable[[Any], None]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, dpi=100, layout="constrained")
    plot(figure.add_subplot())
    sink = io.BytesIO()
    FigureCanvasAgg(figure).print_png(sink)
    return sink.getvalue()
