"""Recorded answers of language models: an id/text table, or the output of an OpenAI batch job."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .description import FORMATS, Description, Recorded, Source, guess_format
from .ids import ids_as_text
from .schema import DataError
from .sources import file_hash, read_source, source_files
from .strict_toml import near


@dataclass(frozen=True)
class RecordedFile:
    """Where answers are and how to read them.

    A table (.parquet, .csv, .jsonl, a database) has ``id_column`` and ``text_columns`` (joined by
    line breaks); ``filter`` keeps rows whose column equals a value. A batch file (.jsonl whose
    lines have ``custom_id`` and ``response``) names rows ``task:id`` or ``id``; ``task`` keeps the
    lines of one task. ``source_columns`` maps names of the item's source record to columns of the
    row: it reproduces the hash by which a batch line says which version of the item it was written
    for.
    """

    path: Path
    id_column: str = "item_id"
    text_columns: tuple[str, ...] = ("text",)
    filter: Mapping[str, str] = field(default_factory=dict)
    task: str = ""
    source_columns: tuple[tuple[str, str], ...] = ()
    model: str = ""  # as its authors name it
    data_cutoff: str = "unknown"
    format: str = ""  # told by the name of the file when empty
    table: str = ""  # of a database


@dataclass(frozen=True)
class Entry:
    """One recorded answer. ``text`` None: asked, but nothing came back (``error`` says why)."""

    text: str | None
    finish_reason: str = "stop"
    tokens_in: int = 0
    tokens_out: int = 0
    description_sha: str = ""
    error: str = ""


@dataclass(frozen=True)
class Recording:
    """Answers by row id; ``sha256`` is that of the file and is the model's identity."""

    entries: Mapping[str, Entry]
    sha256: str
    name: str
    model: str = ""
    data_cutoff: str = "unknown"
    source_columns: tuple[tuple[str, str], ...] = ()

    def texts(self) -> dict[str, str]:
        """Return row id -> text for answers that are not empty."""
        return {i: entry.text for i, entry in self.entries.items() if entry.text}


def recorded_file(
    description: Description, spec: Recorded, data_root: Path | str | None = None
) -> RecordedFile:
    """Return where the answers ``spec`` of a data set lie and how they are read."""
    fields = {f.column or n: n for n, f in description.items.fields.items() if not f.extract}
    columns = {theirs: ours for ours, theirs in description.items.columns.items()}
    return RecordedFile(
        description.folder(data_root) / spec.path,
        id_column=spec.id_column,
        text_columns=spec.text_columns,
        filter=dict(spec.filter),
        task=spec.prompt_task,
        source_columns=tuple({**fields, **columns, "item_id": "item_id"}.items()),
        model=spec.model,
        data_cutoff=spec.data_cutoff,
        format=spec.format,
        table=spec.table,
    )


def load_recorded(
    description: Description,
    prompt_task: str,
    variant: str = "",
    data_root: Path | str | None = None,
) -> Recording | None:
    """Return the recorded answers to ``prompt_task``, or None where none are declared.

    Raises ``DataError`` for an unknown ``variant`` and for what ``read_recording`` refuses.
    """
    spec = description.recorded_for(prompt_task, variant)
    if spec is not None:
        return read_recording(recorded_file(description, spec, data_root))
    declared = description.recorded.values()
    variants = [r.variant for r in declared if r.prompt_task == prompt_task]
    if not variants:
        return None
    raise DataError(
        f"data set {description.name!r} has no recorded {prompt_task} {variant!r}"
        f"{near(variant, variants) or ';'} variants: {', '.join(variants)}"
    )


def read_recording(file: RecordedFile) -> Recording:
    """Return the answers of ``file``; ``DataError`` names file, line or column of a fault."""
    source = Source("recorded", file.path.name, _format(file), table=file.table)
    source_files(source, file.path.parent)  # names a missing or empty file
    batch = source.format == "openai_batch" or _is_batch(file.path, source.format)
    entries = _batch(file) if batch else _table(file, source)
    if not entries:
        raise DataError(f"{file.path}: holds no answer; check filter and columns")
    model = file.model or (_header_model(file.path) if batch else "")
    return Recording(
        entries, file_hash(file.path), file.path.name, model, file.data_cutoff,
        file.source_columns,
    )  # fmt: skip


def _format(file: RecordedFile) -> str:
    kind = file.format or guess_format(file.path.name)
    if kind not in FORMATS:
        raise DataError(f"{file.path}: the format cannot be told from its name; set `format`")
    return kind


def _table(file: RecordedFile, source: Source) -> dict[str, Entry]:
    raw = read_source(source, file.path.parent, [file.id_column])
    if raw.rejects:
        raise DataError(f"{file.path}, record {raw.rejects[0].row}: {raw.rejects[0].reason}")
    table = raw.table
    for column in (file.id_column, *file.text_columns, *file.filter):
        if column not in table.column_names:
            names = table.column_names
            raise DataError(
                f"{file.path}: no column {column!r}{near(column, names) or ';'} "
                f"found {', '.join(names)}"
            )
    for column, value in file.filter.items():
        table = table.filter(pc.equal(table[column].cast(pa.string()), value))
    ids, _ = ids_as_text(table[file.id_column])
    columns = [table[name].to_pylist() for name in file.text_columns]
    entries: dict[str, Entry] = {}
    for row_id, *parts in zip(ids.to_pylist(), *columns, strict=True):
        if row_id is None:
            raise DataError(f"{file.path}: a row has no {file.id_column}")
        if row_id in entries:
            raise DataError(
                f"{file.path}: {file.id_column} {row_id!r} has more than one answer; add a filter "
                f"on one of {', '.join(table.column_names)}"
            )
        told = [str(part) for part in parts if part is not None]
        entries[row_id] = Entry("\n".join(told) if told else None)
    return entries


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {number}: not valid JSON ({error})") from error
            if not isinstance(found, dict):
                raise DataError(f"{path}, line {number}: expected a JSON object per line")
            yield number, found


def _is_batch(path: Path, kind: str) -> bool:
    """Tell a batch file by one of its first two lines: the first may be a header."""
    if kind != "jsonl":
        return False
    first = [line for (_, line), _ in zip(_lines(path), range(2), strict=False)]
    return any("custom_id" in line for line in first)


def _header_model(path: Path) -> str:
    """Return the model that a header line names, plainly or under "header"; "" without one."""
    _, first = next(_lines(path))
    if "custom_id" in first:
        return ""
    header = first.get("header")
    return str((header if isinstance(header, dict) else first).get("model") or "")


def _batch(file: RecordedFile) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    others: set[str] = set()
    for number, line in _lines(file.path):
        if "custom_id" not in line:
            if number == 1:
                continue  # a header that describes the file
            raise DataError(
                f"{file.path}, line {number}: no custom_id; each line of a batch output is "
                '{"custom_id": ..., "response": {...}}'
            )
        task, colon, row_id = str(line["custom_id"]).partition(":")
        if not colon:
            task, row_id = "", task
        if file.task and task not in ("", file.task):
            others.add(task)
            continue
        entry = _batch_entry(line)
        # A row that was asked again is there twice: the later answer counts, a failure never wins.
        if entry.text is not None or row_id not in entries:
            entries[row_id] = entry
    if not entries:
        raise DataError(
            f"{file.path}: no answer for task {file.task!r}; it has "
            f"{', '.join(sorted(others)) or 'no answers'}"
        )
    return entries


def _batch_entry(line: Mapping[str, Any]) -> Entry:
    response = line.get("response") or {}
    body = response.get("body") or {}
    status = response.get("status_code", 200)
    error = line.get("error") or body.get("error")
    if error or status != 200 or not body.get("choices"):
        return Entry(None, error=f"the batch job failed for this row: {error or status}")
    choice = body["choices"][0]
    usage = body.get("usage") or {}
    metadata = body.get("metadata") or {}
    return Entry(
        (choice.get("message") or {}).get("content"),
        choice.get("finish_reason") or "stop",
        int(usage.get("prompt_tokens") or 0),
        int(usage.get("completion_tokens") or 0),
        str((metadata.get("item") or {}).get("description_sha") or ""),
    )
