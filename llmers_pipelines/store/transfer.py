"""Paid-for answers in a portable form: Parquet parts and a JSON header, in a folder or one file.

``header.json`` names the format, row counts and the sha256 of every part. A single file is an
uncompressed tar archive of the same members; it is read member by member and never unpacked.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .formats import EXPORT, StoreError, check_format
from .responses import ResponseStore
from .rows import SCHEMA
from .salvage import examine_segment
from .segments import Segment, SegmentFolder

HEADER = "header.json"
KIND = "llmers answers"
PART_ROWS = 100_000


@dataclass
class Imported:
    """What an import did, in rows. ``conflicts``: another answer to a stored key, not taken."""

    rows: int = 0
    added: int = 0
    present: int = 0
    refused: int = 0
    reasons: list[str] = field(default_factory=list)  # of refused rows, at most 20
    conflicts: list[dict[str, str]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        return {**asdict(self), "conflicting": len(self.conflicts)}


def export_answers(
    store: ResponseStore, dest: Path, *, task: str = "", model: str = "",
    keys: set[str] | None = None, about: dict[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write proven answers to the folder ``dest`` (or the file ``*.tar``); return the header.

    ``task``, ``model`` (as stored, with or without ``@hash``) and ``keys`` narrow the choice; a
    key's first answer is taken. ``dest`` appears whole or not at all and is never overwritten.
    """
    dest = Path(dest)
    if dest.exists():
        raise StoreError(f"{dest} is there already; name a place that is free")
    dest.parent.mkdir(parents=True, exist_ok=True)
    work = dest.with_name(f".exporting-{dest.name}-{os.getpid()}")
    work.mkdir()
    try:
        header = {
            "kind": KIND, "format": EXPORT, "created": datetime.now(UTC).isoformat("T", "seconds"),
            "filters": {"task": task, "model": model, **(about or {})}, "rows": 0,
            "left_out_damaged": 0, "tokens_in": 0, "tokens_out": 0, "files": {},
        }  # fmt: skip
        parts = SegmentFolder(work, SCHEMA, version=store.segments.version)
        seen: set[str] = set()
        for table in _chosen(store, task, model, keys, seen, header):
            written = parts.publish(table).path
            final = work / f"answers-{len(header['files']):05d}.parquet"
            os.rename(written, final)
            header["files"][final.name] = {"rows": len(table), "bytes": final.stat().st_size,
                                           "sha256": _sha256(final.open("rb"))}  # fmt: skip
            header["rows"] += len(table)
            for name in ("tokens_in", "tokens_out"):
                header[name] += pc.sum(table[name]).as_py() or 0
        (work / HEADER).write_text(json.dumps(header, indent=1, ensure_ascii=False))
        if dest.suffix == ".tar":
            _pack(work, dest)
        else:
            os.rename(work, dest)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return header


def _chosen(
    store: ResponseStore, task: str, model: str, keys: set[str] | None, seen: set[str],
    header: dict[str, Any],
) -> Iterator[pa.Table]:  # fmt: skip
    """Yield the wanted rows in tables of about PART_ROWS, each key once."""
    waiting: list[pa.Table] = []
    for segment in store.segments.segments():
        table, bad = _proven(store.segments, segment)
        header["left_out_damaged"] += bad
        mask = []
        for key, own_task, own_model in zip(
            table["key"].to_pylist(), table["task"].to_pylist(), table["model"].to_pylist(),
            strict=True,
        ):  # fmt: skip
            name = own_model or ""
            take = (
                key not in seen
                and (keys is None or key in keys)
                and (not task or own_task == task)
                and (not model or model in (name, name.partition("@")[0]))
            )
            mask.append(take)
            if take:
                seen.add(key)
        waiting.append(table.filter(pa.array(mask, pa.bool_())))
        if sum(map(len, waiting)) >= PART_ROWS:
            yield pa.concat_tables(waiting)
            waiting = []
    if sum(map(len, waiting)):
        yield pa.concat_tables(waiting)


def _proven(folder: SegmentFolder, segment: Segment) -> tuple[pa.Table, int]:
    """Return the proven rows of a segment and how many are damaged."""
    found = examine_segment(folder, segment)
    if found is None:
        return folder.read(segment), 0
    damage, good = found
    return good, max(len(damage.lost), int(damage.whole))


def import_answers(store: ResponseStore, source: Path) -> Imported:
    """Add the answers of ``source`` that the store lacks; a second import adds nothing.

    A stored answer is never replaced: assets were made from it, and an answer once read does not
    change. Raises ``StoreError`` for what is no export, ``FormatError`` for a newer one, and for a
    part whose sha256 differs; nothing is imported then. A row that its own checksum does not prove
    is refused with the reason.
    """
    done = Imported()
    with _opened(Path(source)) as (header, folder):
        parts = SegmentFolder(folder, SCHEMA, version=store.segments.version)
        for name in header["files"]:
            segment = Segment(0, 0, folder / name)
            found = examine_segment(parts, segment)
            table = parts.read(segment) if found is None else found[1]
            done.rows += header["files"][name]["rows"]
            if found is not None:
                done.refused += header["files"][name]["rows"] - len(table)
                told = [line.replace(str(folder / name), name) for line in found[0].lines()]
                done.reasons += told[: 20 - len(done.reasons)]
            _add(store, table, done)
    return done


def _add(store: ResponseStore, table: pa.Table, done: Imported) -> None:
    keys = table["key"].to_pylist()
    stored = store.lookup(keys)
    fresh, first = [], {}
    answers = zip(keys, table["text"].to_pylist(), table["created"].to_pylist(), strict=True)
    for place, (key, text, created) in enumerate(answers):
        have = stored[key].text if key in stored else first.get(key)
        if have is None:
            first[key] = text
            fresh.append(place)
        elif have == text:
            done.present += 1
        else:
            (mine,) = store.records([key]) or [{"created": ""}]
            done.conflicts.append({"key": key, "kept": str(mine["created"]),
                                   "not_taken": str(created)})  # fmt: skip
    if fresh:
        chosen = table.take(pa.array(fresh)).sort_by("key")
        store.segments.publish(chosen)
        done.added += len(chosen)


@contextmanager
def _opened(source: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    """Give the header and a folder with the parts, all verified against the header."""
    if source.is_dir():
        yield _checked(source, source), source
        return
    if not source.is_file():
        raise StoreError(f"{source}: there is no such export")
    work = source.with_name(f".importing-{source.name}-{os.getpid()}")
    work.mkdir()
    try:
        _members(source, work)
        yield _checked(source, work), work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _members(source: Path, work: Path) -> None:
    """Copy the members that an export may have; any other name is refused."""
    try:
        with tarfile.open(source, "r:") as archive:
            for member in archive:
                if not member.isreg() or not _expected(member.name):
                    raise StoreError(f"{source}: {member.name!r} is no part of an export")
                stream = archive.extractfile(member)
                assert stream is not None
                with (work / member.name).open("wb") as out:
                    shutil.copyfileobj(stream, out)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise StoreError(f"{source}: not a readable export ({error}); copy it again") from error


def _expected(name: str) -> bool:
    return name == HEADER or (
        name.startswith("answers-") and name.endswith(".parquet") and name[8:-8].isdecimal()
    )


def _checked(source: Path, folder: Path) -> dict[str, Any]:
    path = folder / HEADER
    if not path.is_file():
        raise StoreError(f"{source}: no {HEADER}, so this is no export of answers")
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        kind, version = header["kind"], header["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: not the header of an export ({error})") from error
    if kind != KIND or not isinstance(version, int):
        raise StoreError(f"{path}: an export of {kind!r}, format {version!r}; expected {KIND!r}")
    check_format(source, "an export", version, EXPORT)
    try:
        for name, said in header["files"].items():
            if not _expected(name):
                raise StoreError(f"{path}: {name!r} is no name of a part")
            part = folder / name
            if not part.is_file():
                raise StoreError(f"{source}: {name} is missing; copy the whole export again")
            if part.stat().st_size != said["bytes"] or _sha256(part.open("rb")) != said["sha256"]:
                raise StoreError(
                    f"{source}: {name} is not what was exported (size or sha256 differs); copy it "
                    "again; nothing was imported"
                )
            int(said["rows"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{path}: not the header of an export ({error})") from error
    return header


def _pack(folder: Path, dest: Path) -> None:
    temporary = dest.with_name(f".writing-{dest.name}-{os.getpid()}")
    try:
        with tarfile.open(temporary, "w") as archive:
            for path in [folder / HEADER, *sorted(folder.glob("answers-*.parquet"))]:
                info = tarfile.TarInfo(path.name)
                info.size = path.stat().st_size
                with path.open("rb") as stream:
                    archive.addfile(info, stream)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.link(temporary, dest)
    finally:
        temporary.unlink(missing_ok=True)


def _sha256(stream: io.BufferedReader) -> str:
    with stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
