"""Immutable Parquet segments in one folder: many writers at once, no reader sees half a file.

A segment is written to a temporary name, fsynced, and published by a hard link under the next
free number. A link fails when the name exists, so numbers grow in the order of publication and
"the first answer wins" never changes its mind. A merged segment carries the range of numbers that
it replaces; readers leave out what another segment's range covers, so a merge needs no lock either.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_NAME = re.compile(r"(\d{10})-(\d{10})\.parquet")
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
STALE_SECONDS = 24 * 3600  # a temporary file this old belongs to a writer that died


class StoreError(RuntimeError):
    """A segment cannot be read; the message names the file and the mend."""


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
    """Segments of one schema. Columns that an older segment lacks are read as nulls."""

    def __init__(self, folder: Path | str, schema: pa.Schema) -> None:
        self.folder = Path(folder)
        self.schema = schema

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

    def publish(self, table: pa.Table) -> Segment:
        """Make ``table`` visible as a new last segment, durably, or not at all."""
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
            _sync_folder(self.folder)

    def _write(self, table: pa.Table) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".writing-{uuid.uuid4().hex}.tmp"
        with temporary.open("wb") as file:
            pq.write_table(table.cast(self.schema), file, compression="zstd")
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

    def read(self, segment: Segment, columns: Sequence[str] | None = None) -> pa.Table:
        """Return one segment as a table with ``columns`` (default all of the schema)."""
        wanted = list(columns) if columns is not None else self.schema.names
        try:
            file = pq.ParquetFile(segment.path)
            table = file.read(columns=[c for c in wanted if c in file.schema_arrow.names])
            file.close()
        except FileNotFoundError:
            raise
        except (pa.ArrowInvalid, OSError) as error:
            raise StoreError(
                f"{segment.path}: not a readable Parquet segment ({error}); restore it from a "
                "copy, or move it away and its answers are asked for again"
            ) from error
        for name in wanted:
            if name not in table.column_names:
                nulls = pa.nulls(len(table), self.schema.field(name).type)
                table = table.append_column(name, nulls)
        return table.select(wanted)

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
            for run in _runs(self.segments(), target_rows):
                self._join(run)
                gone += len(run) - 1
        except FileNotFoundError:
            return gone
        self._sweep()
        return gone

    def _join(self, run: list[Segment]) -> None:
        temporary = self._write(pa.concat_tables([self.read(s) for s in run]))
        name = f"{run[0].first:010d}-{run[-1].last:010d}.parquet"
        os.replace(temporary, self.folder / name)
        _sync_folder(self.folder)
        for segment in run:
            segment.path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what killed writers and killed merges left behind."""
        limit = time.time() - STALE_SECONDS
        for path in self.folder.glob(".writing-*.tmp"):
            if path.stat().st_mtime < limit:
                path.unlink(missing_ok=True)
        for segment in _covered(self._found()):
            segment.path.unlink(missing_ok=True)


def _covered(segments: list[Segment]) -> list[Segment]:
    merged = [s for s in segments if s.last > s.first]
    return [s for s in segments if any(m.covers(s) for m in merged)]


def _runs(segments: list[Segment], target_rows: int) -> Iterator[list[Segment]]:
    """Yield lists of two or more neighbours that together stay at or below ``target_rows``.

    A run has no gap in its numbers: a slow writer might still fill it, and would be hidden.
    """
    run: list[Segment] = []
    rows = 0
    for segment in segments:
        n = pq.read_metadata(segment.path).num_rows
        if run and (rows + n > target_rows or segment.first != run[-1].last + 1):
            if len(run) > 1:
                yield run
            run, rows = [], 0
        run.append(segment)
        rows += n
    if len(run) > 1:
        yield run


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
