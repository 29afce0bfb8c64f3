"""What must stay: everything that a kept version was made from, and what it was made with.

Kept are the current version of every asset, its last N versions, what a pin points at, what was
registered as a model version (or has an alias there), and whatever is younger than the given age.
From these, inputs are followed through the manifests; cells, vectors, fits and answers are kept
where a kept version names them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..config import Settings
from ..store.hanging import answer_keys
from ..store.manifests import Manifest, ManifestStore
from ..store.vectors import text_keys
from .context import StepError

Version = tuple[str, str, str]  # data set, asset, data version


@dataclass
class Reachable:
    """Kept and unreachable versions of all data sets, and what the kept ones name."""

    kept: dict[Version, Manifest] = field(default_factory=dict)
    gone: dict[Version, Manifest] = field(default_factory=dict)
    store: ManifestStore = None  # type: ignore[assignment]
    apart: list[ManifestStore] = field(default_factory=list)  # of experiments that stay

    def folders(self) -> Iterator[tuple[Manifest, Path]]:
        for manifest in self.kept.values():
            yield manifest, self.store.path(manifest)
        for store in self.apart:
            for dataset in store.datasets():
                yield from ((m, store.path(m)) for m in store.versions(dataset, "*/*"))

    def slugs(self, prefix: str) -> set[tuple[str, str]]:
        """Return (data set, slug) of the kept assets below ``prefix``."""
        return {(d, name.split("/")[1]) for d, name, _ in self.kept if name.startswith(prefix)}

    def cells(self) -> set[tuple[str, str]]:
        """Return (data set, cell key) of every training that a kept version was made from."""
        found: set[tuple[str, str]] = set()
        for manifest, folder in self.folders():
            found |= {(manifest.dataset, key) for key in _cell_keys(folder)}
        return found

    def vectors(self) -> dict[str, np.ndarray | None]:
        """Return the keys of the kept vectors by encoder identity; None: keep all of them."""
        found: dict[str, list[np.ndarray] | None] = {}
        for manifest, folder in self.folders():
            identity = manifest.info.get("encoder")
            if not identity:
                continue
            texts = _texts(folder)
            if texts is None:
                found[identity] = None
            elif (known := found.setdefault(identity, [])) is not None:
                known.append(text_keys(identity, texts))
        return {i: None if k is None else np.unique(np.concatenate(k)) for i, k in found.items()}

    def answers(self) -> set[str]:
        """Return the keys of the answers in kept tables."""
        return {key for _, folder in self.folders() for key in answer_keys(folder)}


def reachable(
    settings: Settings, *, keep: int, older_than: timedelta, aliased: bool = False
) -> Reachable:
    """Divide every stored version into kept and unreachable ones.

    Raises ``StoreError`` for a manifest that cannot be read: what it names is not known then.
    """
    store = ManifestStore(settings.data)
    found = Reachable(store=store)
    every: dict[Version, Manifest] = {}
    roots: list[Version] = []
    limit = datetime.now(UTC) - older_than
    for dataset in store.datasets():
        for name in store.names(dataset):
            current = store.current(dataset, name)
            versions = store.versions(dataset, name)
            every |= {_version(m): m for m in versions}
            if current is not None:
                every[_version(current)] = current
                roots.append(_version(current))
            roots += [_version(m) for m in versions[len(versions) - keep :] if keep]
            roots += [_version(m) for m in versions if not _old(m, limit)]
    roots += registered(settings, aliased=aliased)
    while roots:
        version = roots.pop()
        manifest = every.get(version)
        if manifest is not None and version not in found.kept:
            found.kept[version] = manifest
            roots += _made_from(manifest)
    found.gone = {v: m for v, m in every.items() if v not in found.kept}
    young = (p for p in experiments(settings) if newest(p) >= limit.timestamp())
    found.apart = [ManifestStore(p) for p in young]
    return found


def experiments(settings: Settings) -> list[Path]:
    """Return the places of experiments with other models."""
    return sorted(p for p in (settings.data / "experiments").glob("[!.]*") if p.is_dir())


def newest(path: Path) -> float:
    """Return when something below ``path`` was last written."""
    return max([path.stat().st_mtime, *(p.stat().st_mtime for p in path.rglob("*"))])


def registered(settings: Settings, *, aliased: bool = False) -> list[Version]:
    """Return the trained versions that model versions (with an alias) were registered from."""
    local = settings.mlflow_uri.startswith("sqlite:///")
    if local and not Path(settings.mlflow_uri.removeprefix("sqlite:///")).is_file():
        return []
    from ..registry.mlflow_store import MlflowStore

    out: list[Version] = []
    for tags in MlflowStore.from_settings(settings).version_tags(aliased=aliased):
        if tags.get("asset") and tags.get("data_version") and tags.get("dataset"):
            out.append((tags["dataset"], tags["asset"], tags["data_version"]))
    return out


def _version(manifest: Manifest) -> Version:
    return manifest.dataset, manifest.name, manifest.data_version


def _made_from(manifest: Manifest) -> Iterable[Version]:
    """Yield what a version was made from; an input's version carries its flags behind a blank."""
    for name, marked in manifest.inputs.items():
        yield manifest.dataset, name, marked.split()[0]
    info = manifest.info
    for name, version in (("asset", "data_version"), ("train", "train_version")):  # pin, register
        if isinstance(info.get(name), str) and isinstance(info.get(version), str):
            yield manifest.dataset, info[name], info[version]


def _old(manifest: Manifest, limit: datetime) -> bool:
    try:
        made = datetime.fromisoformat(manifest.created)
    except ValueError:
        return False
    return made < limit


def _cell_keys(folder: Path) -> set[str]:
    """Return the cells of an evaluation's summary, and the one that a training was copied from."""
    keys: set[str] = set()
    summary, cell = _json(folder / "summary.json"), _json(folder / "cell.json")
    cells = summary.get("cells")
    if isinstance(cells, dict):
        keys |= {row["key"] for row in cells.values() if isinstance(row, dict) and "key" in row}
    if "key" in cell:
        keys.add(cell["key"])
    return keys


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StepError(
            f"{path}: damaged ({error}); run `llmers store verify --quarantine` before pruning"
        ) from error
    return found if isinstance(found, dict) else {}


def _texts(folder: Path) -> list[str] | None:
    path = folder / "texts.parquet"
    try:
        return [t for t in pq.read_table(path, columns=["text"])["text"].to_pylist() if t]
    except (OSError, pa.ArrowException):
        return None
