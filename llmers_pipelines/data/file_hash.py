"""The hash of a file's content, read once per version of the file."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path


def file_hash(path: Path) -> str:
    """sha256 of the content of ``path``.

    A process that asks every few seconds pays a ``stat`` while size and time stay.
    """
    real = path.resolve()
    found = real.stat()
    return _content(str(real), found.st_size, found.st_mtime_ns, found.st_ino)


@lru_cache(maxsize=1024)
def _content(path: str, size: int, moved: int, place: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
