"""Recorded answers read from a file: an id/text table, or the output of an OpenAI batch job."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .identity import file_sha256
from .protocol import EngineError


@dataclass(frozen=True)
class RecordedFile:
    """Where answers are and how to read them.

    A table (.parquet, .csv, .jsonl) has ``id_column`` and ``text_columns`` (joined by line breaks);
    ``filter`` keeps rows whose column equals a value. A batch file (.jsonl whose lines have
    ``custom_id`` and ``response``) names rows ``task:id``; ``task`` keeps the lines of one task.
    ``source_columns`` maps names of the item's source record to columns of the row: it reproduces
    the hash by which a batch line says which version of the item it was written for.
    """

    path: Path
    id_column: str = "item_id"
    text_columns: tuple[str, ...] = ("text",)
    filter: Mapping[str, str] = field(default_factory=dict)
    task: str = ""
    source_columns: tuple[tuple[str, str], ...] = ()
    model: str = ""  # as its authors name it
    data_cutoff: str = "unknown"


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

    @classmethod
    def from_texts(
        cls, texts: Mapping[str, str | None], sha256: str, *, name: str, model: str = "",
        data_cutoff: str = "unknown",
    ) -> Recording:  # fmt: skip
        """Return a recording of texts that were read elsewhere."""
        return cls({i: Entry(t) for i, t in texts.items()}, sha256, name, model, data_cutoff)


def read_recording(file: RecordedFile) -> Recording:
    """Return the answers of ``file``; ``EngineError`` names file, line or column of a fault."""
    if not file.path.is_file():
        raise EngineError(f"{file.path}: no such file of recorded answers")
    batch = _is_batch(file.path)
    entries = _batch(file) if batch else _table(file)
    if not entries:
        what = f" for task {file.task!r}" if file.task else ""
        raise EngineError(f"{file.path}: holds no answer{what}; check filter, task and columns")
    model = file.model or (_header_model(file.path) if batch else "")
    return Recording(
        entries, file_sha256(file.path), file.path.name, model, file.data_cutoff,
        file.source_columns,
    )  # fmt: skip


def _table(file: RecordedFile) -> dict[str, Entry]:
    table = _read_table(file.path)
    for column in (file.id_column, *file.text_columns, *file.filter):
        if column not in table.column_names:
            raise EngineError(
                f"{file.path}: no column {column!r}; found {', '.join(table.column_names)}"
            )
    for column, value in file.filter.items():
        table = table.filter(pc.equal(table[column].cast(pa.string()), value))
    ids = [_id(value, file) for value in table[file.id_column].to_pylist()]
    columns = [table[name].to_pylist() for name in file.text_columns]
    entries: dict[str, Entry] = {}
    for row_id, *parts in zip(ids, *columns, strict=True):
        if row_id in entries:
            raise EngineError(
                f"{file.path}: {file.id_column} {row_id!r} has more than one answer; add a filter "
                f"on one of {', '.join(table.column_names)}"
            )
        told = [str(part) for part in parts if part is not None]
        entries[row_id] = Entry("\n".join(told) if told else None)
    return entries


def _read_table(path: Path) -> pa.Table:
    match path.suffix:
        case ".parquet":
            return pq.read_table(path)
        case ".csv":
            with path.open(newline="", encoding="utf-8-sig") as file:
                return pa.Table.from_pylist(list(csv.DictReader(file)))  # ids keep leading zeros
        case ".jsonl":
            return pa.Table.from_pylist([line for _, line in _lines(path)])
    raise EngineError(f"{path}: recorded answers are read from .parquet, .csv or .jsonl")


def _id(value: Any, file: RecordedFile) -> str:
    if value is None or value != value:
        raise EngineError(f"{file.path}: a row has no {file.id_column}")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except json.JSONDecodeError as error:
                raise EngineError(f"{path}, line {number}: not valid JSON ({error})") from error
            if not isinstance(found, dict):
                raise EngineError(f"{path}, line {number}: expected a JSON object per line")
            yield number, found


def _is_batch(path: Path) -> bool:
    """Tell a batch file by one of its first two lines: the first may be a header."""
    if path.suffix != ".jsonl":
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
    for number, line in _lines(file.path):
        if "custom_id" not in line:
            if number == 1:
                continue  # a header that describes the file
            raise EngineError(f"{file.path}, line {number}: no custom_id")
        task, colon, row_id = str(line["custom_id"]).partition(":")
        if not colon:
            task, row_id = "", task
        if file.task and task != file.task:
            continue
        entry = _batch_entry(line)
        # A row that was asked again is there twice: the later answer counts, a failure never wins.
        if entry.text is not None or row_id not in entries:
            entries[row_id] = entry
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
