"""Immutable Parquet segments in one folder: many writers at once, no reader sees half a file.

A segment is written to a temporary name, fsynced, and published by a hard link under the next
free number. A link fails when the name exists, so numbers grow in the order of publication and
"the first answer wins" never changes its mind. A merged segment carries the range of numbers that
it replaces; readers leave out what another segment's range covers, so a merge needs no lock either.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .formats import FormatError, StoreError, check_format, stamp, stamped

_NAME = re.compile(r"(\d{10})-(\d{10})\.parquet")
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
STALE_SECONDS = 24 * 3600  # a temporary file this old belongs to a writer that died
GROUP_ROWS = 4096  # a damaged page that cannot be decoded costs the rows of its group at most
_STAMP, _ROWS = "llmers.format", "llmers.rows"
# What a damaged file may raise, depending on the bit.
_BROKEN = (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError)


@dataclass(frozen=True, order=True)
class Segment:
    """One published file; ``first`` and ``last`` are the publication numbers that it holds."""

    first: int
    last: int
    path: Path

    def covers(self, other: Segment) -> bool:
        inside = self.first <= other.first and other.last <= self.last
        return inside and (self.last - self.first) > (other.last - other.first)


class SegmentFolder:
    """Segments of one schema. Columns that an older segment lacks are read as nulls.

    ``version`` is the format that is written, and the newest that is read. ``repeating`` columns
    hold few different values.
    """

    def __init__(
        self, folder: Path | str, schema: pa.Schema, *, version: int = 1,
        repeating: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.folder = Path(folder)
        self.schema = schema
        self.version = version
        self._repeating = list(repeating)

    def segments(self) -> list[Segment]:
        """Return the visible segments in order of publication, merged ones for their parts."""
        found = self._found()
        hidden = set(_covered(found))
        return sorted(s for s in found if s not in hidden)

    def _found(self) -> list[Segment]:
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        return [
            Segment(int(m[1]), int(m[2]), self.folder / name)
            for name in names
            if (m := _NAME.fullmatch(name))
        ]

    def publish(self, table: pa.Table, *, settle: bool = True) -> Segment:
        """Make ``table`` visible as a new last segment, durably, or not at all.

        Without ``settle`` its name is durable after ``sync`` alone: a power failure may lose it
        until then (the end of the process does not), and one wait for the disk is saved.
        """
        temporary = self._write(table)
        try:
            while True:
                number = max((s.last for s in self.segments()), default=0) + 1
                segment = self._claim(temporary, number)
                # A merge may have freed a number that this writer then took: publish again.
                if not any(s.covers(segment) for s in self.segments()):
                    return segment
                segment.path.unlink(missing_ok=True)
        finally:
            temporary.unlink(missing_ok=True)
            if settle:
                self.sync()

    def sync(self) -> None:
        """Make the names of all published segments durable."""
        if self.folder.is_dir():
            _sync_folder(self.folder)

    def _write(self, table: pa.Table) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".writing-{uuid.uuid4().hex}.tmp"
        marks = {_STAMP: stamp(self.version), _ROWS: stamp(len(table))}
        with temporary.open("wb") as file:
            with pq.ParquetWriter(
                file, self.schema, compression="zstd", use_dictionary=self._repeating,
                write_statistics=False, store_schema=False, write_page_checksum=True,
            ) as writer:  # fmt: skip
                writer.write_table(table.cast(self.schema), row_group_size=GROUP_ROWS)
                writer.add_key_value_metadata(marks)
            file.flush()
            os.fsync(file.fileno())
        return temporary

    def _claim(self, temporary: Path, number: int) -> Segment:
        while True:
            path = self.folder / f"{number:010d}-{number:010d}.parquet"
            try:
                os.link(temporary, path)
            except FileExistsError:
                number += 1
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                return self._rename(temporary, number)
            else:
                return Segment(number, number, path)

    def _rename(self, temporary: Path, number: int) -> Segment:
        """Publish on a file system without hard links, under a number that a claim file reserves.

        Here a slower writer may still publish below a number that was read before, so the first
        answer of two equal keys may change once; nothing is lost.
        """
        twin = temporary.with_name(f".writing-{uuid.uuid4().hex}.tmp")
        shutil.copyfile(temporary, twin)
        with twin.open("rb") as file:
            os.fsync(file.fileno())
        while True:
            path = self.folder / f"{number:010d}-{number:010d}.parquet"
            claim = self.folder / f"{number:010d}.claim"
            try:
                os.close(os.open(claim, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                number += 1
                continue
            free = not path.exists()
            if free:
                os.rename(twin, path)
            claim.unlink()
            if free:
                return Segment(number, number, path)
            number += 1

    def read(
        self, segment: Segment, columns: Sequence[str] | None = None, *, verify: bool = True
    ) -> pa.Table:
        """Return one segment as a table with ``columns`` (default all of the schema).

        ``verify`` checks the page checksums; without, a caller proves what it reads itself.
        """
        wanted = list(columns) if columns is not None else self.schema.names
        try:
            with self._open(segment, verify=verify) as file:
                names = [c for c in wanted if c in file.schema_arrow.names]
                table = file.read(columns=names, use_threads=verify)
                table.validate()
                return self._shaped(table, wanted, file.metadata.num_rows)
        except (FileNotFoundError, StoreError):
            raise
        except _BROKEN as error:
            raise _unreadable(segment, error) from error

    def read_rows(self, segment: Segment, rows: np.ndarray) -> pa.Table:
        """Return some rows (ascending) of one segment; the groups that hold none are not read."""
        try:
            with self._open(segment, verify=True) as file:
                sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
                ends = np.cumsum(sizes)
                if len(ends) and ends[-1] != file.metadata.num_rows:
                    raise StoreError(f"{segment.path}: its row groups have {ends[-1]} rows, its "
                                     f"footer says {file.metadata.num_rows}")  # fmt: skip
                if not len(ends) or rows[-1] >= ends[-1]:
                    raise FileNotFoundError(segment.path)  # it was replaced meanwhile
                group = np.searchsorted(ends, rows, side="right")
                wanted = np.unique(group)
                names = [c for c in self.schema.names if c in file.schema_arrow.names]
                table = file.read_row_groups(wanted.tolist(), columns=names, use_threads=False)
                table.validate()
                skipped = ends[wanted] - np.cumsum(np.array(sizes)[wanted])
                at = rows - skipped[np.searchsorted(wanted, group)]
                return self._shaped(table, self.schema.names, table.num_rows).take(at)
        except (FileNotFoundError, StoreError):
            raise
        except _BROKEN as error:
            raise _unreadable(segment, error) from error

    def salvage(
        self, segment: Segment, columns: Sequence[str] | None = None
    ) -> tuple[pa.Table, list[str]]:
        """Return all rows of a damaged segment, nulls where nothing can be decoded, and the faults.

        What is decoded is not proven right. Raises ``StoreError`` where not even the footer can be
        read.
        """
        wanted = list(columns) if columns is not None else self.schema.names
        faults: list[str] = []
        parts = []
        try:
            with self._open(segment, verify=True) as strict, self._open(segment) as loose:
                for group in range(strict.num_row_groups):
                    rows = strict.metadata.row_group(group).num_rows
                    if not 0 <= rows <= 2**31:
                        raise ValueError(f"row group {group} claims {rows} rows")
                    names = [c for c in wanted if c in strict.schema_arrow.names]
                    where = f"row group {group}"
                    found = {c: self._column(strict, loose, group, c, where, faults) for c in names}
                    kept = {c: a for c, a in found.items() if a is not None and len(a) == rows}
                    parts.append(self._shaped(pa.table(kept), wanted, rows))
        except (FileNotFoundError, StoreError):
            raise
        except _BROKEN as error:
            raise _unreadable(segment, error) from error
        return pa.concat_tables([self.schema.empty_table().select(wanted), *parts]), faults

    def _column(
        self, strict: Any, loose: Any, group: int, name: str, where: str, faults: list[str]
    ) -> pa.ChunkedArray | None:
        for file in (strict, loose):
            try:
                column = file.read_row_group(group, columns=[name])[name]
                column.validate(full=True)
                return column.cast(self.schema.field(name).type)
            except FileNotFoundError:
                raise
            except _BROKEN as error:
                faults.append(f"{where}, column {name}: {_first_line(error)}")
        return None

    def version_of(self, segment: Segment) -> int:
        """Return the format version that a segment was written in."""
        with self._open(segment) as file:
            return stamped(_marks(file).get(_STAMP))

    def expected_rows(self, segment: Segment) -> int | None:
        """Return how many rows were written, as the file says beside its own counts.

        None for a file of an older form; -1 where the number itself is damaged.
        """
        with self._open(segment) as file:
            marks = _marks(file)
        if _ROWS not in marks:
            return -1 if _STAMP in marks else None
        return stamped(marks[_ROWS], damaged=-1)

    def _open(self, segment: Segment, *, verify: bool = False) -> pq.ParquetFile:
        try:
            file = pq.ParquetFile(segment.path, page_checksum_verification=verify)
            version = stamped(_marks(file).get(_STAMP))
        except FileNotFoundError:
            raise
        except _BROKEN as error:
            raise _unreadable(segment, error) from error
        check_format(segment.path, "a segment", version, self.version)
        return file

    def _shaped(self, table: pa.Table, wanted: Sequence[str], rows: int) -> pa.Table:
        """Return ``table`` with exactly the columns ``wanted``, in the schema's types."""
        columns = []
        for name in wanted:
            kind = self.schema.field(name).type
            there = name in table.column_names
            columns.append(table[name].cast(kind) if there else pa.nulls(rows, kind))
        return pa.table(columns, names=list(wanted))

    def replace(self, segment: Segment, table: pa.Table) -> None:
        """Put ``table`` (perhaps without rows) in the place of a segment, at once.

        For mending and pruning alone: readers take the file's identity into account.
        """
        os.replace(self._write(table), segment.path)
        _sync_folder(self.folder)

    def read_all(self, columns: Sequence[str] | None = None) -> list[tuple[Segment, pa.Table]]:
        """Return each visible segment with its table; a merge meanwhile starts the reading anew."""
        for _ in range(20):
            try:
                return [(s, self.read(s, columns)) for s in self.segments()]
            except FileNotFoundError:
                continue
        raise StoreError(f"{self.folder}: segments keep vanishing; stop the merge")

    def merge(self, *, target_rows: int = 100_000) -> int:
        """Replace runs of neighbouring small segments by one each; return how many files went.

        Rows stay in publication order. Where another process merges at the same time, this one
        leaves the rest to it; ranges that both merged are then stored twice, which a reader that
        keeps first rows does not see.
        """
        gone = 0
        try:
            for run in self._runs(self.segments(), target_rows):
                gone += self._join(run)
        except FileNotFoundError:
            return gone
        self._sweep()
        return gone

    def _join(self, run: list[Segment]) -> int:
        """Merge a run and return how many files went; a damaged segment stays and splits it."""
        if len(run) < 2:
            return 0
        tables = []
        for place, segment in enumerate(run):
            try:
                tables.append(self.read(segment))
            except StoreError:
                return self._join(run[:place]) + self._join(run[place + 1 :])
        temporary = self._write(pa.concat_tables(tables))
        name = f"{run[0].first:010d}-{run[-1].last:010d}.parquet"
        os.replace(temporary, self.folder / name)
        _sync_folder(self.folder)
        for segment in run:
            segment.path.unlink(missing_ok=True)
        return len(run) - 1

    def _runs(self, segments: list[Segment], target_rows: int) -> Iterator[list[Segment]]:
        """Yield lists of two or more neighbours that together stay at or below ``target_rows``.

        A run has no gap in its numbers: a slow writer might still fill it, and would be hidden.
        """
        run: list[Segment] = []
        rows = 0
        for segment in segments:
            try:
                with self._open(segment) as file:
                    n = file.metadata.num_rows
            except FormatError:
                raise
            except StoreError:
                n = target_rows + 1  # it cannot be merged
            if run and (rows + n > target_rows or segment.first != run[-1].last + 1):
                if len(run) > 1:
                    yield run
                run, rows = [], 0
            run.append(segment)
            rows += n
        if len(run) > 1:
            yield run

    def _sweep(self) -> None:
        """Remove what killed writers and killed merges left behind."""
        limit = time.time() - STALE_SECONDS
        for path in self.folder.glob(".writing-*.tmp"):
            with contextlib.suppress(FileNotFoundError):  # it was published meanwhile
                if path.stat().st_mtime < limit:
                    path.unlink()
        for segment in _covered(self._found()):
            segment.path.unlink(missing_ok=True)


def _covered(segments: list[Segment]) -> list[Segment]:
    merged = [s for s in segments if s.last > s.first]
    return [s for s in segments if any(m.covers(s) for m in merged)]


def _marks(file: pq.ParquetFile) -> dict[str, str]:
    """Return what was written beside the rows; damaged bytes never equal a mark."""
    found = file.metadata.metadata or {}
    return {k.decode("utf-8", "replace"): v.decode("utf-8", "replace") for k, v in found.items()}


def _unreadable(segment: Segment, error: BaseException) -> StoreError:
    return StoreError(
        f"{segment.path}: not a readable Parquet segment ({_first_line(error)}); `llmers store "
        "verify --quarantine` keeps its good rows and moves it away; what is lost is asked again"
    )


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
