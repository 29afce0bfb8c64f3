"""Format versions of what lies on disk, and the errors of reading it.

Every form carries its version. A newer one than this code knows fails before anything of it is
read; older ones are read as they are:

- answers 1: one checksum over answer, request and identity; 2: one of the answer and one of what
  is recorded beside it, page checksums, the key's second 64 bits as a number;
- vectors 1: a hash of the segment in its name; 2: a checksum per row beside it;
- manifests 1: no checksum; 2: size and sha256 of every file, and of the manifest itself;
- cells 1: ``files.json`` with size and sha256 of every file (older ones lack the file).
"""

from __future__ import annotations

import zlib

ANSWERS, VECTORS, MANIFEST, CELL, EXPORT = 2, 2, 2, 1, 1


class StoreError(RuntimeError):
    """Something stored cannot be read; the message names the file and the mend."""


class FormatError(StoreError):
    """It was written by a newer version of this package."""


def check_format(where: object, what: str, found: int, known: int) -> None:
    """Raise ``FormatError`` where ``found`` is newer than ``known``."""
    if found > known:
        raise FormatError(
            f"{where}: {what} of format {found}, this version reads formats up to {known}; "
            "install the version that wrote it (nothing was changed)"
        )


def stamp(version: int) -> str:
    """Return the version as text that a flipped bit cannot turn into another version."""
    return f"{version}-{zlib.crc32(str(version).encode()):08x}"


def stamped(text: str | None, damaged: int = 1) -> int:
    """Return the number of a stamp; ``damaged`` where there is none or a bit of it flipped."""
    try:
        version = int((text or "").partition("-")[0])
    except ValueError:
        return damaged
    return version if stamp(version) == text else damaged
