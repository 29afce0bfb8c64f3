"""A vector beside its nearest neighbours: exact cosine over the rows that carry knowledge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...data.vectors import VectorTable
from .form import Named, VectorRow

NEIGHBOURS = 8
_BLOCK = 65_536  # rows compared at once
_TEXTS = "texts.parquet"


def vector_content(
    table: VectorTable, row_id: str, folder: Path, encoder: str, titles: Mapping[str, str]
) -> VectorRow | None:
    """Return the vector of ``row_id``, the text it was made from and its neighbours."""
    if row_id not in table.ids:
        return None
    at = table.ids.index(row_id)
    vector = np.asarray(table.vectors[at], np.float32)
    known = bool(table.mask[at])
    near = nearest(table, at) if known else []
    return VectorRow(
        entity=table.entity,
        width=table.dim,
        norm=round(float(np.linalg.norm(vector)), 6),
        known=known,
        head=tuple(round(float(v), 4) for v in vector[:8]),
        text=_text(folder, table.entity, row_id),
        encoder=encoder,
        neighbours=tuple(
            Named(table.ids[i], titles.get(table.ids[i]) if table.entity == "item" else None,
                  round(cosine, 4)) for i, cosine in near
        ),
        compared=max(0, int(table.mask.sum()) - known),
    )  # fmt: skip


def nearest(table: VectorTable, at: int, k: int = NEIGHBOURS) -> list[tuple[int, float]]:
    """Return (row, cosine) of the k rows nearest to row ``at``, best first.

    Rows without text hold a fallback that says nothing of their entity: they are left out. Equal
    ones stand in the order of the table.
    """
    vector = np.asarray(table.vectors[at], np.float32)
    cosine = np.empty(len(table.ids), np.float32)
    for start in range(0, len(cosine), _BLOCK):
        block = np.asarray(table.vectors[start : start + _BLOCK], np.float32)
        norm = np.sqrt(np.einsum("ij,ij->i", block, block)) * np.linalg.norm(vector)
        cosine[start : start + _BLOCK] = (block @ vector) / np.maximum(norm, 1e-12)
    others = np.flatnonzero(table.mask)
    others = others[others != at]
    best = others[np.argsort(-cosine[others], kind="stable")[:k]]
    return [(int(i), float(cosine[i])) for i in best]


def _text(folder: Path, entity: str, row_id: str) -> str | None:
    """Return what the encoder read; None where the version keeps no texts (a derived vector)."""
    file = folder / _TEXTS
    if not file.is_file():
        return None
    table = pq.read_table(file)
    id_column = table.column_names[0]
    rows = table.filter(pc.equal(table[id_column], row_id))
    return str(rows["text"][0].as_py() or "") if rows.num_rows else ""
