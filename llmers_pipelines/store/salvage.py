"""What of the stored answers is damaged, what of it is still good, and setting the rest aside.

A row is good when its checksum holds and its key is the hash of its request. Where the answer is
proven but what is recorded beside it is not, the answer stays and the unproven columns are emptied:
it was paid for, and its key still finds it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from .formats import FormatError, StoreError
from .rows import (
    ANSWER,
    ASKED,
    BESIDE,
    SCHEMA,
    answer_sum,
    key_numbers,
    old_checksum,
    response_key,
    row_checksum,
)
from .segments import Segment, SegmentFolder

_TEXTS = tuple(f.name for f in SCHEMA if pa.types.is_string(f.type))


@dataclass(frozen=True)
class LostRow:
    """A row whose answer cannot be proven; what is named of it is as it was read."""

    row: int
    key: str | None
    model: str | None
    task: str | None
    tokens_in: int | None
    tokens_out: int | None
    reason: str


@dataclass(frozen=True)
class Damage:
    """One damaged segment: ``rows`` as far as known, ``emptied`` ones kept without their beside."""

    path: Path
    problems: tuple[str, ...]
    rows: int
    emptied: int = 0
    lost: tuple[LostRow, ...] = ()
    whole: bool = False  # not even its footer can be read: which rows it held is not known
    size: int = 0  # bytes of the file

    @property
    def saved(self) -> str:
        """What of the segment is kept and what is lost, in words."""
        if self.whole:
            return "which answers it held is not known"
        if not self.lost:
            return f"all {self.rows} answers are whole, none is lost"
        return f"{self.rows - len(self.lost)} answers are whole, {len(self.lost)} are lost"

    @property
    def mend(self) -> str:
        """What brings the segment back into order."""
        if self.lost or self.whole:
            return "the lost answers are asked again by the next run of the assets"
        return "nothing is asked again: --quarantine writes the segment anew from its whole answers"

    def lines(self) -> list[str]:
        """Return one line per fault."""
        told = [f"{self.path}: {problem}; {self.saved}" for problem in self.problems]
        return told + [f"{self.path}: row {x.row}, key {x.key}: {x.reason}" for x in self.lost]


def examine(folder: SegmentFolder) -> Iterator[tuple[Segment, Damage, pa.Table]]:
    """Yield each damaged segment with what of it is good; reads everything once."""
    for segment in folder.segments():
        try:
            found = examine_segment(folder, segment)
        except FileNotFoundError:
            continue  # merged meanwhile: its rows are in a segment of a later listing
        if found is not None:
            yield segment, *found


def examine_segment(folder: SegmentFolder, segment: Segment) -> tuple[Damage, pa.Table] | None:
    """Return the damage of one segment and its good rows; None where every row is proven."""
    problems: list[str] = []
    size = segment.path.stat().st_size
    try:
        table = folder.read(segment)
    except FormatError:
        raise
    except StoreError as error:
        try:
            table, problems = folder.salvage(segment)
        except FormatError:
            raise
        except StoreError:
            damage = Damage(segment.path, (str(error),), 0, whole=True, size=size)
            return damage, SCHEMA.empty_table()
        problems = problems or [str(error)]
    expected = folder.expected_rows(segment)
    if expected is not None and expected != len(table):
        problems.append(f"{len(table)} rows can be read, {expected} were written")
    good: list[dict[str, Any]] = []
    lost: list[LostRow] = []
    emptied = 0
    for number, row in enumerate(_rows(table)):
        reason = _judge(row)
        if reason:
            lost.append(LostRow(number, row["key"], row["model"], row["task"], row["tokens_in"],
                                row["tokens_out"], reason))  # fmt: skip
            continue
        mended = _mended(row)
        emptied += mended is not row or row.pop("refound", False)
        good.append(mended)
    if emptied:
        problems.append(f"{emptied} answers are whole, what is stored beside them is not")
    if not problems and not lost:
        return None
    damage = Damage(segment.path, tuple(problems), len(table), emptied, tuple(lost), size=size)
    return damage, _table(good)


def quarantine(
    folder: SegmentFolder, segment: Segment, damage: Damage, good: pa.Table, into: Path
) -> Path:
    """Keep the good rows of a segment in its place and the file as it is below ``into``."""
    return set_aside(segment.path, into, dataclasses.asdict(damage),
                     lambda: folder.replace(segment, good))  # fmt: skip


def set_aside(path: Path, into: Path, reason: dict[str, Any], then: Any = None) -> Path:
    """Move a file or folder below ``into`` with its reason; ``then`` puts what replaces it.

    With ``then`` the original stays readable until it is replaced at once.
    """
    target = into / f"{time.time_ns()}-{path.name}"
    target.mkdir(parents=True)
    (target / "reason.json").write_text(json.dumps(reason, indent=1, default=str))
    if then is None:
        os.rename(path, target / path.name)
    else:
        _keep(path, target / path.name)
        then()
    return target


def _keep(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield rows with ``created`` in microseconds; a text that is not UTF-8 is None."""
    for batch in table.to_batches(max_chunksize=4096):
        columns = {}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if name in _TEXTS:
                columns[name] = [_decoded(v) for v in column.cast(pa.binary()).to_pylist()]
            elif name == "created":
                columns[name] = column.cast(pa.int64()).to_pylist()
            else:
                columns[name] = column.to_pylist()
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _judge(row: dict[str, Any]) -> str:
    """Return why the answer of a row is not proven, or nothing.

    A key that cannot be read, or that its request does not give, is found again from the request.
    """
    asked = _key(row)
    lacking = [name for name in ANSWER[1:] if row[name] is None]
    if lacking or (row["key"] is None and asked is None):
        return f"{', '.join(lacking) or 'key'} cannot be read"
    for key in dict.fromkeys(k for k in (row["key"], asked) if k is not None):
        if _proves(row, key):
            if key != row["key"]:
                row |= {"key": key, "refound": True}
            old = len(row["checksum"]) == 16
            return "the key is not that of its identity and request" if old and asked != key else ""
    return "the row's checksum does not match its content"


def _proves(row: dict[str, Any], key: str) -> bool:
    """Say whether the row's checksum holds for the answer under ``key``."""
    said = row["checksum"] or ""
    if len(said) == 16:
        return old_checksum({**row, "key": key}) == said
    first = answer_sum(key.encode(), row["text"].encode(), row["finish_reason"].encode(),
                       row["tokens_in"], row["tokens_out"])  # fmt: skip
    return len(said) == 32 and first == said[:16]


def _key(row: dict[str, Any]) -> str | None:
    if row["identity"] is None or row["request"] is None or "\n" in row["identity"]:
        return None
    return response_key(row["identity"], row["request"])


def _mended(row: dict[str, Any]) -> dict[str, Any]:
    """Return a proven row as it is, or one whose unproven columns are empty."""
    old = len(row["checksum"]) == 16
    mended = dict(row)
    high, low = key_numbers(row["key"])
    mended |= {"key64": high, "low64": None if old and row["low64"] is None else low}
    if not old:
        if _key(row) != row["key"] and not all(row[name] is None for name in ASKED):
            mended |= dict.fromkeys(ASKED)
        if row["created"] is None or row_checksum(row) != row["checksum"]:
            mended |= {**dict.fromkeys(BESIDE), "created": 0}
            mended["checksum"] = row_checksum(mended)
    return row if mended == row else mended


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    columns = []
    for field in SCHEMA:
        values = [row[field.name] for row in rows]
        if field.name == "created":
            columns.append(pa.array(values, pa.int64()).cast(field.type))
        else:
            columns.append(pa.array(values, field.type))
    return pa.table(columns, schema=SCHEMA)
