"""Trained cells and vectors: what is damaged, and what a checksum can restore of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .findings import Fault, Look
from .fingerprints import (
    CELL_FILES,
    differences,
    fingerprint,
    parsed_fingerprint,
    read_fingerprint,
)
from .formats import FormatError, StoreError
from .hanging import readable
from .manifests import ManifestStore
from .salvage import set_aside
from .vector_form import parsed_space, read_space
from .vectors import VectorSpace

_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, StoreError)
RESTORED = "one flipped bit of it is turned back; what it describes stays"


def restored(raw: bytes, read: Callable[[bytes], Any]) -> bytes | None:
    """Return ``raw`` with the one bit turned back that makes it readable; None where none does.

    ``read`` proves a document or raises. Two that say different things are no proof.
    """
    found: dict[str, bytes] = {}
    for at in range(len(raw)):
        for bit in range(8):
            body = raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :]
            try:
                found.setdefault(repr(read(body)), body)
            except _DAMAGED:
                continue
    return next(iter(found.values())) if len(found) == 1 else None


def _restore(look: Look, path: Path, good: bytes, into: str, problem: str) -> str:
    """Put ``good`` in the place of a damaged file, which is kept aside; return where."""
    if look.aside is None:
        return ""

    def put() -> None:
        temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
        temporary.write_bytes(good)
        os.replace(temporary, path)

    return str(set_aside(path, look.aside / into, {"path": path, "problem": problem}, put))


def audit_cells(look: Look) -> None:
    """Compare the files of each trained cell with their list."""
    seconds = 0.0
    for folder in sorted((look.data / "cells").glob("*/*")):
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        into = f"cells/{folder.parent.name}"
        try:
            files = read_fingerprint(folder)
            faults = differences(folder, files or {})
        except FormatError as error:
            look.report.newer("cells", folder, error)
            continue
        except StoreError as error:
            path = folder / CELL_FILES
            good = restored(path.read_bytes(), _proves(folder))
            if good is not None:
                moved = _restore(look, path, good, into, str(error))
                look.report.faults.append(
                    Fault("cells", str(folder), str(error), RESTORED, (folder.parent.name,), moved)
                )
                look.report.count("cells")
                continue
            files, faults = {}, [str(error)]
        look.report.count("cells", listed=files is not None)
        if not faults:
            continue
        seconds += _seconds(folder)
        moved = ""
        if look.aside is not None:
            moved = str(set_aside(folder, look.aside / into, {"path": folder, "problems": faults}))
        look.report.faults += [
            Fault("cells", str(folder), f, "trained again by the next evaluation that asks for it",
                  (folder.parent.name,), moved) for f in faults]  # fmt: skip
    if seconds:
        look.report.regeneration["cells"] = {"training_seconds": round(seconds, 1)}


def _proves(folder: Path) -> Callable[[bytes], Any]:
    """Return a reader of lists that fails for one that the folder's files do not bear out."""
    there = fingerprint(folder)

    def read(raw: bytes) -> Any:
        files = parsed_fingerprint(folder / CELL_FILES, raw)
        if any(there.get(name) != mark for name, mark in files.items()):
            raise ValueError("the files are others")
        return files

    return read


def _seconds(folder: Path) -> float:
    try:
        return float(json.loads((folder / "cell.json").read_text())["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def audit_vectors(look: Look) -> None:
    """Prove each vector, and what names its space."""
    manifests = ManifestStore(look.data)
    readers: dict[str, list[str]] = {}
    for dataset in manifests.datasets():
        for manifest in readable(manifests, dataset):
            if manifest.info.get("encoder"):
                readers.setdefault(manifest.info["encoder"], []).append(
                    f"{dataset}: {manifest.name}")  # fmt: skip
    texts = 0
    into = look.aside / "vectors" if look.aside is not None else None
    for path in sorted((look.data / "vectors").glob("*/space.json")):
        look.report.count("vector spaces")
        space = _space(look, path)
        if space is None:
            continue
        names = tuple(readers.get(space["identity"], ()))
        found = VectorSpace(path.parent, space["dim"])
        for folder in sorted(found.folder.glob("seg-*")):
            look.report.count("vector segments", listed=(folder / "sums.npy").is_file())
        for fault in found.verify(mend=into is not None, into=into):
            texts += fault.rows
            look.report.faults.append(Fault(
                "vectors", str(fault.path), fault.problem,
                "the lost texts are encoded again by the next run", names, str(into or ""),
            ))  # fmt: skip
    if texts:
        look.report.regeneration["vectors"] = {"texts_to_encode": texts}


def _space(look: Look, path: Path) -> dict[str, Any] | None:
    """Return what describes a space, restored where that is proven; None where it cannot be."""
    try:
        found = read_space(path)
        if found["format"] < 3:
            _fits(path, found)
        return found
    except FormatError as error:
        look.report.newer("vectors", path, error)
        return None
    except (StoreError, ValueError) as error:
        problem = str(error)

    def read(raw: bytes) -> dict[str, Any]:
        found = _fits(path, parsed_space(path, raw))
        return {name: found[name] for name in ("identity", "dim")}  # old forms are read alike

    good = restored(path.read_bytes(), read)
    if good is not None:
        moved = _restore(look, path, good, "vectors", problem)
        look.report.faults.append(Fault("vectors", str(path), problem, RESTORED, (), moved))
        return read(good)
    moved = ""
    if look.aside is not None:
        moved = str(set_aside(path.parent, look.aside / "vectors",
                              {"path": path, "problem": problem}))  # fmt: skip
    look.report.faults.append(
        Fault(
            "vectors", str(path), problem, "its texts are encoded again by the next run", (), moved
        )
    )
    return None


def _fits(path: Path, space: dict[str, Any]) -> dict[str, Any]:
    """Return ``space`` if some stored segment has its width, or none can be read."""
    widths = set()
    for part in path.parent.glob("seg-*/vectors.npy"):
        try:
            widths.add(np.load(part, mmap_mode="r", allow_pickle=False).shape[1:])
        except (OSError, ValueError, EOFError, SyntaxError, TypeError, KeyError):
            continue
    if widths and (space["dim"],) not in widths:
        raise ValueError(f"{path}: width {space['dim']}, its segments have {sorted(widths)[0][0]}")
    return space
