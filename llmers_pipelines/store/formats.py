"""Format versions of what lies on disk, and the errors of reading it.

Every form carries its version. A newer one than this code knows fails before anything of it is
read; older ones are read as they are:

- answers 1: one checksum over answer, request and identity; 2: one of the answer and one of what
  is recorded beside it, page checksums, the key's second 64 bits as a number;
- vectors 1: a hash of the segment in its name; 2: a checksum per row beside it; 3: ``space.json``
  with its own checksum;
- manifests 1: no checksum; 2: size and sha256 of every file, and of the manifest itself;
- cells 1: ``files.json`` with size and sha256 of every file (older ones lack the file); 2: with its
  own checksum.

A JSON document carries its version under its checksum (``sealed``), so that a flipped digit is
damage and not another version. Every later form keeps that rule.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

ANSWERS, VECTORS, MANIFEST, CELL, EXPORT = 2, 3, 2, 2, 1


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


def checksum(body: Mapping[str, Any], version: int) -> str:
    """Return the sha256 of a document's content and version."""
    text = json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(f"{version}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()


def sealed(body: Mapping[str, Any], version: int) -> dict[str, Any]:
    """Return ``body`` with its version and the checksum of both."""
    return {"format": version, "checksum": checksum(body, version), **body}


def unsealed(
    where: object, what: str, document: Mapping[str, Any], *, known: int, bare: int
) -> tuple[int, dict[str, Any]]:
    """Return (version, body) of a document; up to ``bare`` versions were written without checksum.

    Raises ``ValueError`` where its checksum does not prove it, and ``FormatError`` where it proves
    a version newer than ``known``.
    """
    body = dict(document)
    version, said = body.pop("format", 1), body.pop("checksum", None)
    if said is not None and said != checksum(body, version):
        raise ValueError("its checksum does not match its content")
    if said is None and version not in range(1, bare + 1):
        raise ValueError("it lacks its checksum")
    check_format(where, what, version, known)
    return version, body
