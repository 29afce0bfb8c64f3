"""What is stored, in numbers: answers with money, vectors, versions of assets, format versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..prices import Price
from .fingerprints import CELL_FILES, list_format
from .formats import StoreError
from .hanging import answer_keys
from .manifests import ManifestStore
from .responses import ResponseStore
from .usage import money
from .vector_form import read_space
from .vectors import VectorStore


def inventory(data: Path, prices: Mapping[str, Price]) -> dict[str, Any]:
    """Return ``answers``, ``vectors``, ``versions``, ``folders`` and ``formats``."""
    store = ResponseStore(data / "responses")
    answers = store.stats()
    for group in answers["groups"]:
        group["money"] = money(prices, [group])
    answers["money"] = money(prices, answers["groups"])
    vectors = VectorStore(data / "vectors").stats()
    manifests = ManifestStore(data)
    return {
        "answers": answers, "vectors": vectors, "versions": _versions(manifests),
        "folders": {name: _folder(data / name) for name in
                    ("cells", "fits", "encoders", "quarantine") if (data / name).is_dir()},
        "formats": _formats(data, store, manifests),
    }  # fmt: skip


def keys_of_dataset(data: Path, dataset: str) -> set[str]:
    """Return the keys of every answer that a stored version of ``dataset`` was made from."""
    root = ManifestStore(data).warehouse / dataset
    return {k for path in root.glob("*/*/*/rows.parquet") for k in answer_keys(path.parent)}


def _versions(manifests: ManifestStore) -> list[dict[str, Any]]:
    rows = []
    for dataset in manifests.datasets():
        for name in manifests.names(dataset):
            folders = [p for p in (manifests.warehouse / dataset / name).glob("[!.]*")
                       if p.is_dir()]  # fmt: skip
            rows.append({"dataset": dataset, "asset": name, "versions": len(folders),
                         "bytes": _bytes(folders)})  # fmt: skip
    return rows


def _folder(path: Path) -> dict[str, int]:
    entries = [p for p in path.glob("*/[!.]*") if p.is_dir()]
    return {"entries": len(entries), "bytes": _bytes([path])}


def _bytes(folders: Iterable[Path]) -> int:
    return sum(p.stat().st_size for f in folders for p in f.rglob("*") if p.is_file())


def _formats(data: Path, store: ResponseStore, manifests: ManifestStore) -> dict[str, str]:
    """Return the format versions that are found on disk, by kind, each with its count."""
    kinds: dict[str, dict[str, int]] = {k: {} for k in ("answers", "vectors", "manifests", "cells")}

    def count(kind: str, version: object) -> None:
        kinds[kind][str(version)] = kinds[kind].get(str(version), 0) + 1

    for segment in store.segments.segments():
        try:
            count("answers", store.segments.version_of(segment))
        except (StoreError, FileNotFoundError):
            count("answers", "unreadable")
    for path in (data / "vectors").glob("*/seg-*"):
        space = read_space(path.parent / "space.json")["format"]
        count("vectors", max(2, space) if (path / "sums.npy").is_file() else 1)
    for dataset in manifests.datasets():
        for name in manifests.names(dataset):
            for version in manifests.versions(dataset, name):
                count("manifests", 2 if version.files else 1)
    for path in (data / "cells").glob("*/[!.]*"):
        listed = (path / CELL_FILES).is_file()
        count("cells", list_format(path) if listed else "without a list of files")
    return {k: ", ".join(f"{v} ({n})" for v, n in sorted(found.items()))
            for k, found in kinds.items()}  # fmt: skip
