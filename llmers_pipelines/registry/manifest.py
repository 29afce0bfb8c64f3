"""The manifest of a bundle: every file with size and sha256; its hash names the bundle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FORMAT = 1
MANIFEST = "manifest.json"
MODEL_LIST = "llmers_files.json"  # of a registered model, beside what MLflow wrote
CONFIG, WEIGHTS, CATALOG, USERS, HISTORIES, INDEX = (
    "config.json", "weights.safetensors", "catalog.parquet", "users.parquet",
    "histories.safetensors", "index.faiss",
)  # fmt: skip
_CHANGING = (MODEL_LIST, "registered_model_meta")  # MLflow writes the latter again when it loads
REQUIRED = (CONFIG, WEIGHTS, CATALOG, USERS, HISTORIES)


class BundleError(ValueError):
    """A bundle cannot be written or read; the message says what was found and the mend."""


def to_json(document: Any) -> str:
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read_manifest(folder: Path, name: str = MANIFEST) -> dict[str, Any]:
    """Return ``{"format", "content_hash", "files"}`` of a bundle without reading its tables."""
    path = Path(folder) / name
    if not path.is_file():
        raise BundleError(f"{folder}: no {name}, so this is no served bundle; write it again")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = manifest["format"]
        said, files = manifest["content_hash"], manifest["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: not a bundle manifest ({error}); write it again") from error
    if found != FORMAT:
        raise BundleError(
            f"{folder}: bundle format {found}, this version reads {FORMAT}; register the model "
            "again or install the version that wrote it"
        )
    if said != _content_hash(files):
        raise BundleError(f"{path}: content_hash {said} is not that of its list of files; copy the "
                          "whole bundle or write it again")  # fmt: skip
    return manifest


def write_manifest(folder: Path) -> str:
    """Write the manifest of all files in ``folder`` and return the content hash."""
    return _write(folder, MANIFEST)


def write_model_list(folder: Path) -> None:
    """Write beside a registered model the list of all its files, those that MLflow wrote too."""
    _write(folder, MODEL_LIST)


def _write(folder: Path, name: str) -> str:
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in _CHANGING)
    files = {
        p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": _sha256(p)}
        for p in paths
    }
    document = {"format": FORMAT, "content_hash": _content_hash(files), "files": files}
    (folder / name).write_text(to_json(document), encoding="utf-8")
    return document["content_hash"]


def _content_hash(files: Any) -> str:
    return hashlib.sha256(to_json(files).encode()).hexdigest()[:16]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_files(folder: Path, manifest: dict[str, Any], verify: bool) -> None:
    """Raise ``BundleError`` unless every file has its size and, with ``verify``, its sha256."""
    missing = [name for name in REQUIRED if name not in manifest["files"]]
    if missing:
        raise BundleError(f"{folder}: the manifest lacks {missing[0]}; write the bundle again")
    _compare(folder, manifest, verify)


def _compare(folder: Path, manifest: dict[str, Any], verify: bool) -> None:
    for name, said in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{path}: missing; copy the whole bundle or write it again")
        size = path.stat().st_size
        if size != said["bytes"]:
            raise BundleError(f"{path}: {size} bytes, expected {said['bytes']}; copy it again")
        if verify and _sha256(path) != said["sha256"]:
            raise BundleError(f"{path}: content differs from its checksum; copy it again")


def bundle_faults(root: Path) -> Iterator[tuple[Path, str, bool]]:
    """Yield each registered model below ``root``: folder, what is wrong ("" = nothing), listed.

    ``listed``: all its files are, those of MLflow too; of a model that an older version registered
    only the bundle's files are.
    """
    models = {path.parent for path in root.rglob(MODEL_LIST)}
    for folder in sorted(models):
        yield folder, _fault(folder, MODEL_LIST), True
    for path in sorted(root.rglob(MANIFEST)):
        folder = path.parent
        served = (folder / CONFIG).is_file() or (folder / WEIGHTS).is_file()
        if served and models.isdisjoint(folder.parents):
            yield folder, _fault(folder, MANIFEST), False


def _fault(folder: Path, name: str) -> str:
    try:
        manifest = read_manifest(folder, name)
        if name == MANIFEST:
            check_files(folder, manifest, verify=True)
        else:
            _compare(folder, manifest, verify=True)
    except (BundleError, KeyError, TypeError) as error:
        return str(error)
    return ""


def publish(work: Path, folder: Path, content_hash: str) -> Path:
    """Move ``work`` to ``folder`` at once; an equal bundle there stays, another one raises."""
    if folder.exists():
        found = read_manifest(folder)["content_hash"]
        if found != content_hash:
            raise BundleError(
                f"{folder} already holds bundle {found}, this one is {content_hash}; "
                "bundles are never overwritten, choose another folder"
            )
        return folder
    try:
        os.rename(work, folder)
    except OSError:
        # another process published the same bundle in between
        if read_manifest(folder)["content_hash"] != content_hash:
            raise
    return folder
