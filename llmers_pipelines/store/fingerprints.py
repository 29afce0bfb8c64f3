"""Size and sha256 of the files of a folder: what a stored version must still hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from .formats import CELL, StoreError, check_format

CELL_FILES = "files.json"


def fingerprint(folder: Path) -> dict[str, tuple[int, str]]:
    """Return name -> (bytes, sha256) of every file below ``folder``."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): (p.stat().st_size, _sha256(p)) for p in paths}


def differences(folder: Path, files: Mapping[str, tuple[int, str]]) -> list[str]:
    """Return what differs from ``files``, one line per file; other files are no fault."""
    faults = []
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            faults.append(f"{path}: missing")
        elif path.stat().st_size != size:
            faults.append(f"{path}: {path.stat().st_size} bytes, {size} were written")
        elif _sha256(path) != digest:
            faults.append(f"{path}: the content is not what was written")
    return faults


def write_fingerprint(folder: Path) -> None:
    """Write the list of all files of a folder into it."""
    document = {"format": CELL, "files": fingerprint(folder)}
    (folder / CELL_FILES).write_text(json.dumps(document, indent=1))


def read_fingerprint(folder: Path) -> dict[str, tuple[int, str]] | None:
    """Return the list that was written into a folder; None where there is none."""
    path = folder / CELL_FILES
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text())
        version, files = document["format"], document["files"]
        found = {name: (int(size), str(digest)) for name, (size, digest) in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: damaged ({error})") from error
    check_format(path, "a cell", version, CELL)
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
