"""Size and sha256 of the files of a folder: what a stored version must still hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from .formats import CELL, StoreError, sealed, unsealed

CELL_FILES = "files.json"


def fingerprint(folder: Path) -> dict[str, tuple[int, str]]:
    """Return name -> (bytes, sha256) of every file below ``folder``."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): mark(p) for p in paths}


def mark(path: Path) -> tuple[int, str]:
    """Return (bytes, sha256) of one file."""
    return path.stat().st_size, _sha256(path)


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
    document = sealed({"files": fingerprint(folder)}, CELL)
    (folder / CELL_FILES).write_text(json.dumps(document, indent=1))


def read_fingerprint(folder: Path) -> dict[str, tuple[int, str]] | None:
    """Return the list that was written into a folder; None where there is none."""
    path = folder / CELL_FILES
    if not path.is_file():
        return None
    try:
        return parsed_fingerprint(path, path.read_bytes())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{path}: damaged ({error}); `llmers store verify --quarantine` restores it where it "
            "can, else it sets the cell aside and it is trained again"
        ) from error


def list_format(folder: Path) -> int | str:
    """Return the format of a folder's list, "unreadable" where it is damaged."""
    try:
        document = json.loads((folder / CELL_FILES).read_bytes())
        return unsealed(folder, "a cell", document, known=CELL, bare=1)[0]
    except (ValueError, KeyError, TypeError, AttributeError):
        return "unreadable"


def parsed_fingerprint(path: Path, raw: bytes) -> dict[str, tuple[int, str]]:
    """Return the list that ``raw`` holds; ``ValueError`` and its like where it is damaged."""
    _, body = unsealed(path, "a cell", json.loads(raw), known=CELL, bare=1)
    if set(body) != {"files"}:
        raise ValueError("it is no list of files")
    return {name: (int(size), str(digest)) for name, (size, digest) in body["files"].items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
