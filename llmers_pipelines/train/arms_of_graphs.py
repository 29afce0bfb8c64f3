"""Control arms of edges and graphs: the same shapes with other labels, owners or nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa


def is_edges(artifact: Any) -> bool:
    """Say whether the artifact is a table of labelled edges of the log."""
    return isinstance(artifact, pa.Table) and {"user_id", "item_id", "aspect"} <= set(
        artifact.column_names
    )


def is_graphs(artifact: Any) -> bool:
    """Say whether the artifact is a table of graphs of users."""
    return isinstance(artifact, pa.Table) and {"user_id", "cut", "nodes", "sources"} <= set(
        artifact.column_names
    )


def dealt_graphs(table: pa.Table, to: Mapping[str, str]) -> pa.Table:
    """Return the graphs of each user as those of user ``to``, from that user's own cuts on.

    Where that user has no graph of the round, the graph keeps the cut that it has.
    """
    rows = table.to_pylist()
    cuts = {(r["user_id"], r["round"]): r["cut"] for r in rows}
    moved = [
        {**r, "user_id": to[r["user_id"]], "cut": cuts.get((to[r["user_id"]], r["round"]),
                                                          r["cut"])}
        for r in rows
    ]  # fmt: skip
    return pa.Table.from_pylist(moved, table.schema)


def random_graphs(table: pa.Table, rng: np.random.Generator) -> pa.Table:
    """Return graphs of the same shape whose nodes are drawn from the nodes of all graphs."""
    every = sorted({n for nodes in table["nodes"].to_pylist() for n in nodes})
    drawn = [
        [every[n] for n in rng.choice(len(every), len(nodes), replace=len(nodes) > len(every))]
        for nodes in table["nodes"].to_pylist()
    ]
    column = pa.array(drawn, table.schema.field("nodes").type)
    return table.set_column(table.column_names.index("nodes"), "nodes", column)


def dealt_edges(table: pa.Table, rng: np.random.Generator, *, whole: bool) -> pa.Table:
    """Return the same edges with other labels: each label keeps its number of edges.

    With ``whole`` the labels of a pair go together to another pair; without it each label draws its
    own pairs anew.
    """
    pairs = list(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))
    distinct = sorted(set(pairs))
    labels = table["aspect"].to_pylist()
    out: list[tuple[str, str, str]] = []
    if whole:
        to = dict(zip(distinct, (distinct[n] for n in rng.permutation(len(distinct))), strict=True))
        out = [(*to[pair], label) for pair, label in zip(pairs, labels, strict=True)]
    else:
        for label in sorted(set(labels)):
            chosen = rng.choice(len(distinct), labels.count(label), replace=False)
            out += [(*distinct[n], label) for n in chosen]
    columns = zip(*sorted(out), strict=True)
    names = ("user_id", "item_id", "aspect")
    return pa.table({n: pa.array(c, pa.string()) for n, c in zip(names, columns, strict=True)})
