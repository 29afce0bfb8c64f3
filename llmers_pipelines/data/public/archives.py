"""Files in the folder ``raw``: plain, gzip, or inside a zip or tar, read as bounded streams.

Archives are never unpacked to disk: a member is found by its name and read as a stream, so that no
path inside an archive can lead anywhere, and what it expands to is bounded.
"""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from ..schema import DataError

MAX_RATIO = 200  # text files of these sets shrink by less than 30
FREE_BYTES = 64 << 20  # expanded size that is always allowed
MAX_MEMBERS = 100_000
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError,
           EOFError, NotImplementedError)  # fmt: skip


class Bounded(io.RawIOBase):
    """A stream that raises ``DataError`` once it has given more than ``limit`` bytes."""

    def __init__(self, stream: BinaryIO, limit: int, shown: str) -> None:
        self._stream, self._limit, self._shown, self.given = stream, limit, shown, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[override]
        try:
            data = self._stream.read(len(buffer))
        except _BROKEN as fault:
            raise damaged(self._shown, fault) from None
        except RuntimeError as fault:  # an encrypted member
            raise DataError(f"{self._shown} cannot be read: {fault}") from None
        self.given += len(data)
        if self.given > self._limit:
            raise DataError(
                f"{self._shown} expands to more than {self._limit:,} bytes, which no file of this "
                "data set does; it is not read further. Get it again from its official address"
            )
        buffer[: len(data)] = data
        return len(data)


def damaged(shown: str, fault: Exception) -> DataError:
    """Return the error for a file that is cut short or corrupt."""
    return DataError(f"{shown} is damaged ({fault}); remove it and fetch it again")


def _limit(size: int) -> int:
    return FREE_BYTES + MAX_RATIO * size


def _bounded(stream: BinaryIO, size: int, shown: str) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(Bounded(stream, _limit(size), shown), 1 << 20))


def local_file(raw: Path, name: str) -> Path | None:
    """Return the copy of ``name`` in ``raw``: itself, without .gz, or an unpacked folder."""
    stem = name.removesuffix(".gz").removesuffix(".zip")
    for path in (raw / name, raw / stem):
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            return path
    return None


@contextmanager
def open_raw(raw: Path, name: str, member: str = "") -> Iterator[BinaryIO]:
    """Open the file ``name`` of ``raw``, or ``member`` inside it, as a stream of its plain bytes.

    A member is found by its last path parts ("ml-100k/u.data" or "u.data"); an archive inside an
    archive is looked into. Raises ``DataError`` where it is missing, damaged or a bomb.
    """
    path = local_file(raw, name)
    if path is None:
        raise DataError(f"{raw} lacks {name}")
    with ExitStack() as stack:
        if path.is_dir():
            path = _unpacked(path, member)
            member = ""
        size = path.stat().st_size
        stream = stack.enter_context(path.open("rb"))
        if member:
            yield _open_member(stack, stream, size, str(path), member)
            return
        head = stream.read(2)
        stream.seek(0)
        if head == b"\x1f\x8b":
            unzipped = stack.enter_context(gzip.GzipFile(fileobj=stream))
            yield _bounded(cast(BinaryIO, unzipped), size, str(path))
        else:
            yield stream


def _unpacked(folder: Path, member: str) -> Path:
    wanted = PurePosixPath(member).name
    found = [p for p in sorted(folder.rglob("*")) if p.is_file() and _is(p.name, wanted)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(f"{folder} lacks {wanted}; put the file there, or the archive beside it")
    same = [p for p in found if p.parent.name == PurePosixPath(member).parent.name]
    if len(same) == 1:
        return same[0]
    raise DataError(f"{folder} holds {wanted} more than once: {found[0]}, {found[1]}; leave one")


def _is(name: str, wanted: str) -> bool:
    return name == wanted or name == wanted + ".gz"


def _open_member(
    stack: ExitStack, stream: BinaryIO, size: int, shown: str, member: str
) -> BinaryIO:
    head = stream.read(4)
    stream.seek(0)
    try:
        if head[:2] == b"PK":
            return _zip_member(stack, stream, shown, member)
        return _tar_member(stack, stream, size, shown, member)
    except _BROKEN as fault:
        raise damaged(shown, fault) from None


def _zip_member(stack: ExitStack, stream: BinaryIO, shown: str, member: str) -> BinaryIO:
    archive = stack.enter_context(zipfile.ZipFile(stream))
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise DataError(f"{shown} names {len(infos):,} files; at most {MAX_MEMBERS:,} are read")
    chosen = _choose([i.filename for i in infos if not i.is_dir()], member)
    inner = chosen or _choose_archive([i.filename for i in infos])
    if not inner:
        raise _missing(shown, member, [i.filename for i in infos])
    info = next(i for i in infos if i.filename == inner)
    opened = cast(BinaryIO, stack.enter_context(archive.open(info)))
    plain = _bounded(opened, info.compress_size, f"{shown}: {inner}")
    if chosen:
        return plain
    return _tar_member(stack, plain, info.file_size, f"{shown}: {inner}", member)


def _tar_member(stack: ExitStack, stream: BinaryIO, size: int, shown: str, member: str) -> BinaryIO:
    archive = tarfile.open(fileobj=stream, mode="r|*")  # noqa: SIM115
    stack.enter_context(archive)
    seen: list[str] = []
    for info in archive:
        if len(seen) >= MAX_MEMBERS:
            raise DataError(f"{shown} names more than {MAX_MEMBERS:,} files")
        seen.append(info.name)
        if info.isfile() and _choose([info.name], member):
            opened = archive.extractfile(info)
            if opened is not None:
                return _bounded(cast(BinaryIO, opened), size, f"{shown}: {info.name}")
    raise _missing(shown, member, seen)


def _choose(names: list[str], member: str) -> str:
    """Return the name with the same last part, and the same folder where several have it."""
    wanted = PurePosixPath(member)
    found = [n for n in names if PurePosixPath(n.replace("\\", "/")).name == wanted.name
             and "__MACOSX" not in n]  # fmt: skip
    exact = [n for n in found if n == member or n.endswith("/" + member)]
    return (exact or sorted(found, key=len) or [""])[0]


def _choose_archive(names: list[str]) -> str:
    """Return the only tar inside a zip, "" where there is none."""
    tars = [n for n in names if n.endswith((".tar", ".tgz", ".tar.gz")) and "__MACOSX" not in n]
    return tars[0] if len(tars) == 1 else ""


def _missing(shown: str, member: str, names: list[str]) -> DataError:
    there = ", ".join(repr(n) for n in names[:8]) or "nothing"
    return DataError(
        f"{shown} does not hold {member!r}; it holds {there}; it may be another edition of the data"
    )
