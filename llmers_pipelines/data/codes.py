"""Declared columns of items and users as integer codes for ctr models."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .description import FieldSpec, Source
from .schema import TITLE, DataError
from .training import Field, IdMap
from .validate import to_numbers
from .words import word_codes


def coded_fields(
    table: pa.Table | None,
    source: Source | None,
    id_column: str,
    ids: IdMap,
    train_positions: np.ndarray,
) -> tuple[dict[str, Field], dict[str, object]]:
    """Return the category and number fields of ``source`` as codes in the order of ``ids``.

    Codes are int32[n + 1] with 0 for padding and missing values. Of several values the first is
    taken. Numbers fall into buckets whose bounds are quantiles over the training rows
    (``train_positions`` int64[R], the entity of each row).
    """
    if table is None or source is None:
        return {}, {}
    place = _rows_of(table, id_column, ids)
    fields: dict[str, Field] = {}
    several, single_valued = [], []
    for spec in source.fields.values():
        if spec.kind not in ("category", "number"):
            continue
        column = table[spec.name]
        if spec.kind == "number":
            fields[spec.name] = _buckets(column, place, spec, train_positions)
        else:
            fields[spec.name] = _categories(column, place, spec)
            if spec.separator:
                several.append(spec.name)
        if len(fields[spec.name].vocabulary) < 2:
            single_valued.append(spec.name)
            del fields[spec.name]
    info: dict[str, object] = {"fields": {n: len(f.vocabulary) for n, f in fields.items()}}
    if several:
        info["first_of_several"] = several
    if single_valued:
        info["constant_fields_left_out"] = single_valued
    return fields, info


def coded_texts(
    table: pa.Table, source: Source, id_column: str, ids: IdMap, train_positions: np.ndarray
) -> dict[str, Field]:
    """Return the words of the title and of each text field of ``source``, in the order of ``ids``.

    The vocabulary is that of the entities in the training rows (``train_positions`` int64[R]).
    """
    place = _rows_of(table, id_column, ids)
    known = np.zeros(len(ids) + 1, bool)
    known[train_positions] = True
    names = [f.name for f in source.fields.values() if f.kind == "text" and not f.coded]
    texts = {}
    for name in dict.fromkeys([TITLE, *names]):
        if name in table.column_names:
            column = table[name].to_pylist()
            values = [column[p] or "" if p >= 0 else "" for p in place]
            texts[name] = word_codes(values, known[1:])
    return texts


def coded_rows(
    table: pa.Table, column: str, rows: np.ndarray, known: np.ndarray, split: str
) -> Field:
    """Return the values of ``column`` in ``rows`` int64[R] as codes int32[R], 0 where missing.

    The vocabulary is that of the rows ``known`` (bool[R]); other values are 0 as well. Raises
    ``DataError`` when there is no such column.
    """
    if column not in table.column_names:
        raise DataError(
            f"split {split!r} reads column {column!r}, which the interactions lack; columns: "
            f"{', '.join(table.column_names)}"
        )
    values = pc.cast(table[column], pa.string()).combine_chunks().take(pa.array(rows))
    vocabulary = sorted(pc.unique(values.filter(pa.array(known))).drop_null().to_pylist())
    found = pc.index_in(values, value_set=pa.array(vocabulary, pa.string()))
    codes = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int32) + 1
    return Field(codes, tuple(vocabulary))


def coded_by_entity(
    fields: dict[str, Field], column: str, positions: np.ndarray, known: np.ndarray, where: str
) -> Field:
    """Return a category of items or users as codes of the rows at ``positions`` int64[R].

    ``column`` is ``item.<field>`` or ``user.<field>``; of several values the first is taken. The
    vocabulary is that of the rows ``known`` (bool[R]); other values are 0. Raises ``DataError``,
    with ``where`` in front, when there is no such field.
    """
    side, _, name = column.partition(".")
    if name not in fields:
        raise DataError(
            f"{where} reads {column!r}, and the {side}s declare no category {name!r} of two or "
            f"more values; they have: {', '.join(fields) or 'none'}"
        )
    field = fields[name]
    codes = field.codes[positions]
    met = np.unique(codes[known & (codes > 0)])
    new = np.zeros(len(field.vocabulary) + 1, np.int32)
    new[met] = np.arange(1, len(met) + 1)
    return Field(new[codes], tuple(field.vocabulary[c - 1] for c in met))


def _rows_of(table: pa.Table, id_column: str, ids: IdMap) -> np.ndarray:
    """Row of ``table`` for each id, int64[n]; -1 where it has none."""
    found = pc.index_in(pa.array(ids.ids, pa.string()), value_set=table[id_column].combine_chunks())
    return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)


def _spread(codes: np.ndarray, place: np.ndarray) -> np.ndarray:
    out = np.zeros(len(place) + 1, np.int32)
    out[1:] = np.where(place >= 0, codes[place], 0)
    return out


def _categories(column: pa.ChunkedArray, place: np.ndarray, spec: FieldSpec) -> Field:
    words = pc.cast(column, pa.string())
    if spec.separator:
        words = pc.list_element(pc.split_pattern(words, "|", max_splits=1), 0)
    words = pc.utf8_trim_whitespace(words)
    words = pc.if_else(pc.equal(words, ""), pa.scalar(None, pa.string()), words)
    vocabulary = sorted(pc.unique(words).drop_null().to_pylist())
    found = pc.index_in(words, value_set=pa.array(vocabulary, pa.string()))
    codes = pc.fill_null(found, -1).to_numpy().astype(np.int64) + 1
    return Field(_spread(codes, place), tuple(vocabulary))


def _buckets(
    column: pa.ChunkedArray, place: np.ndarray, spec: FieldSpec, train: np.ndarray
) -> Field:
    values, bad = to_numbers(column)
    if bad.any():
        raise DataError(f"field {spec.name!r} is declared a number but holds other values")
    by_id = np.where(place >= 0, values[place], np.nan)
    seen = by_id[train - 1]
    seen = seen[~np.isnan(seen)]
    if not len(seen):
        return Field(np.zeros(len(place) + 1, np.int32), ())
    bounds = np.unique(np.quantile(seen, np.linspace(0, 1, spec.buckets + 1)[1:-1]))
    codes = np.where(np.isnan(by_id), 0, np.searchsorted(bounds, by_id, side="right") + 1)
    edges = ["-inf", *(f"{b:.6g}" for b in bounds), "inf"]
    names = tuple(f"[{low}, {high})" for low, high in pairwise(edges))
    out = np.zeros(len(place) + 1, np.int32)
    out[1:] = codes
    return Field(out, names)
