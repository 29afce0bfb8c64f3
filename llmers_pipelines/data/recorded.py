"""Recorded answers of language models: one text per entity, with the hash of their file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from .catalog import require_files
from .description import Description, Recorded, Source
from .ids import ids_as_text
from .schema import TEXT, DataError
from .sources import connect, file_hash, literal, read_source, source_files
from .strict_toml import near

ENTITY_ID = "entity_id"


@dataclass(frozen=True)
class RecordedAnswers:
    """``table`` has entity_id and text, one row per entity; ``sha256`` is that of the file.

    ``ignored`` counts records that were left out, by reason.
    """

    spec: Recorded
    table: pa.Table
    sha256: str
    ignored: dict[str, int]

    def texts(self) -> dict[str, str]:
        """Return entity id -> text for answers that are not empty."""
        ids, texts = self.table[ENTITY_ID].to_pylist(), self.table[TEXT].to_pylist()
        return {i: t for i, t in zip(ids, texts, strict=True) if t}


def load_recorded(
    description: Description,
    prompt_task: str,
    variant: str = "",
    data_root: Path | str | None = None,
) -> RecordedAnswers | None:
    """Return the recorded answers to ``prompt_task``; None when the data set declares none.

    Without ``variant`` the first declared one counts. Raises ``DataError`` when answers are
    declared but their file or a column is missing.
    """
    spec = description.recorded_for(prompt_task, variant)
    if spec is None:
        declared = description.recorded.values()
        variants = [r.variant for r in declared if r.prompt_task == prompt_task]
        if not variants:
            return None
        raise DataError(
            f"data set {description.name!r} has no recorded {prompt_task} {variant!r}"
            f"{near(variant, variants) or ';'} variants: {', '.join(variants)}"
        )
    folder = require_files(description, data_root)
    file = source_files(spec, folder)[0]
    read = _batch(file, spec) if spec.format == "openai_batch" else _rows(spec, folder)
    ids, _ = ids_as_text(read[ENTITY_ID])
    known = pa.table({ENTITY_ID: ids, TEXT: read[TEXT]}).filter(pc.is_valid(ids))
    kept = _first_of_each(known)
    ignored = {"no_id": len(ids) - len(known), "repeated_id": len(known) - len(kept)}
    return RecordedAnswers(spec, kept, file_hash(file), {k: v for k, v in ignored.items() if v})


def _first_of_each(table: pa.Table) -> pa.Table:
    numbered = table.append_column("n", pa.array(range(len(table)), pa.int64()))
    first = numbered.group_by(ENTITY_ID).aggregate([("n", "min")])["n_min"]
    return table.take(first.take(pc.sort_indices(first)))


def _rows(spec: Recorded, folder: Path) -> pa.Table:
    """Read an id/text table; several text columns are joined by a line break."""
    source = Source(spec.key, spec.path, spec.format, table=spec.table)
    raw = read_source(source, folder, [spec.id_column]).table
    for column in (spec.id_column, *spec.text_columns, *spec.filter):
        if column not in raw.column_names:
            raise DataError(
                f"{folder / spec.path}: recorded.{spec.key} names column {column!r}, which is not "
                f"there{near(column, raw.column_names) or ';'} "
                f"columns: {', '.join(raw.column_names)}"
            )
    for column, value in spec.filter.items():
        raw = raw.filter(pc.equal(pc.cast(raw[column], pa.string()), value))
    texts = [pc.cast(raw[c], pa.string()) for c in spec.text_columns]
    text = texts[0] if len(texts) == 1 else _joined(texts)
    return pa.table({ENTITY_ID: raw[spec.id_column], TEXT: text})


def _joined(texts: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(*texts, "\n", null_handling="skip")


def _batch(file: Path, spec: Recorded) -> pa.Table:
    """Read the output of a batch job: lines with custom_id (``task:id`` or ``id``) and response.

    A row that was asked again is there twice: the later answer counts, a failure never wins. The
    first line may be a header without custom_id.
    """
    content = "$.response.body.choices[0].message.content"
    lines = (
        connect()
        .sql(
            f"SELECT json_extract_string(json, '$.custom_id') AS id, json IS NULL AS bad, "
            f"json_extract_string(json, '{content}') AS {TEXT} "
            f"FROM read_ndjson_objects({literal(str(file))}, ignore_errors=true)"
        )
        .to_arrow_table()
    )
    ids, no_id = lines["id"], pc.is_null(lines["id"])
    if len(lines) and pc.any(no_id.combine_chunks()[1:]).as_py():
        at = pc.index(no_id.combine_chunks()[1:], True).as_py() + 2
        raise DataError(
            f"{file}, record {at}: "
            + ("not a JSON object" if lines["bad"][at - 1].as_py() else "no custom_id")
            + '; each line of a batch output is {"custom_id": ..., "response": {...}}'
        )
    parts = pc.extract_regex(ids, r"(?s)^(?:(?P<task>[^:]*):)?(?P<id>.*)$")
    task, name = (pc.struct_field(parts, f) for f in ("task", "id"))
    asked = pc.or_(pc.equal(task, ""), pc.equal(task, spec.prompt_task))
    if not pc.any(asked).as_py():
        found = sorted({t for t in pc.unique(task).to_pylist() if t})
        raise DataError(
            f"{file}: no line answers the task {spec.prompt_task!r}; it has "
            f"{', '.join(found) or 'no answers'}"
        )
    read = pa.table({ENTITY_ID: name, TEXT: lines[TEXT]}).filter(asked)
    place = pa.array(range(len(read)), pa.int64())
    rank = pc.if_else(pc.is_valid(read[TEXT]), place, pc.subtract(place, len(read)))
    return read.take(pc.sort_indices(rank, sort_keys=[("", "descending")]))
