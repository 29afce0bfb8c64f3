"""One manifest per asset, data set and version: the truth that runs, the CLI and lineage read.

A manifest is written last, by a rename, after the files it names are in place; versions are never
overwritten. Dagster's events mirror it.

It carries its format, its own checksum, and size and sha256 of every file that it names.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .formats import MANIFEST, StoreError, sealed, unsealed


@dataclass(frozen=True)
class CheckOutcome:
    """One asset check: ``blocking`` ones hold everything downstream until they pass."""

    name: str
    passed: bool
    blocking: bool = False
    details: dict[str, Any] = field(default_factory=dict)
    description: str = ""


@dataclass(frozen=True)
class Manifest:
    """What is stored of one asset for one data set, and what it was made from."""

    name: str  # prefix/slug
    dataset: str
    code_version: str
    data_version: str
    digest: str
    folder: str  # relative to the warehouse
    inputs: dict[str, str] = field(default_factory=dict)  # asset name -> data version
    sources: dict[str, str] = field(default_factory=dict)  # files and models -> hash
    rows: int = 0
    counts: dict[str, Any] = field(default_factory=dict)
    checks: tuple[CheckOutcome, ...] = ()
    flags: tuple[str, ...] = ()  # labels_seen, contaminated: inherited by everything downstream
    columns: tuple[tuple[str, str, str], ...] = ()  # name, type, description
    lineage: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    created: str = ""
    seconds: float = 0.0
    files: dict[str, tuple[int, str]] = field(default_factory=dict)  # name -> bytes, sha256

    @property
    def held_by(self) -> list[str]:
        """Names of the blocking checks that failed."""
        return [c.name for c in self.checks if c.blocking and not c.passed]


class ManifestStore:
    """Manifests below ``<root>/manifests/<dataset>/<prefix>/<slug>/``."""

    def __init__(self, root: Path) -> None:
        self.root = root / "manifests"
        self.warehouse = root / "warehouse"

    def _folder(self, dataset: str, name: str) -> Path:
        return self.root / dataset / name

    def current(self, dataset: str, name: str) -> Manifest | None:
        """Return the newest manifest, or None where the asset was never materialized."""
        path = self._folder(dataset, name) / "current.json"
        return self._read(path) if path.is_file() else None

    def of(self, dataset: str, node: Any) -> Manifest | None:
        """Return the newest version made from just ``node``, else the current one: experiments of
        one home share names, and what the last of them made is not what another one read."""
        now = self.current(dataset, node.name)
        if now is None or now.digest == node.digest:
            return now
        own = [m for m in self.versions(dataset, node.name) if m.digest == node.digest]
        return own[-1] if own else now

    def version(self, dataset: str, name: str, data_version: str) -> Manifest | None:
        path = self._folder(dataset, name) / f"{data_version}.json"
        return self._read(path) if path.is_file() else None

    def versions(self, dataset: str, name: str) -> list[Manifest]:
        """Return every stored version of an asset, oldest first; ``name`` may be a pattern."""
        paths = (self.root / dataset).glob(f"{name}/*.json")
        found = [self._read(p) for p in paths if p.name != "current.json"]
        return sorted(found, key=lambda m: (m.created, m.data_version))

    def all(self, dataset: str) -> Iterator[Manifest]:
        """Yield the current manifest of every asset of ``dataset``, by name."""
        for path in sorted((self.root / dataset).glob("*/*/current.json")):
            yield self._read(path)

    def names(self, dataset: str) -> list[str]:
        """Return the assets of ``dataset`` that have a manifest."""
        return sorted(f"{p.parent.name}/{p.name}" for p in (self.root / dataset).glob("*/*")
                      if p.is_dir())  # fmt: skip

    def forget(self, manifest: Manifest) -> None:
        """Remove the manifest of a version that is not the current one."""
        (self._folder(manifest.dataset, manifest.name) / f"{manifest.data_version}.json").unlink()

    def damaged(self) -> Iterator[tuple[Path, StoreError]]:
        """Yield each manifest file that cannot be read, with the reason."""
        for path in sorted(self.root.glob("*/*/*/*.json")):
            try:
                self._read(path)
            except StoreError as error:
                yield path, error

    def datasets(self) -> list[str]:
        return sorted(p.name for p in self.root.glob("*") if p.is_dir())

    def path(self, manifest: Manifest) -> Path:
        return self.warehouse / manifest.folder

    def write(self, manifest: Manifest) -> None:
        folder = self._folder(manifest.dataset, manifest.name)
        folder.mkdir(parents=True, exist_ok=True)
        body = json.loads(json.dumps(dataclasses.asdict(manifest), default=str))
        text = json.dumps(sealed(body, MANIFEST), ensure_ascii=False, indent=1)
        for name in (f"{manifest.data_version}.json", "current.json"):
            _replace(folder / name, text)

    @staticmethod
    def _read(path: Path) -> Manifest:
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
            _, body = unsealed(path, "a manifest", body, known=MANIFEST, bare=1)
            body["checks"] = tuple(CheckOutcome(**c) for c in body["checks"])
            body["flags"] = tuple(body["flags"])
            body["columns"] = tuple(tuple(c) for c in body["columns"])
            body["lineage"] = {k: tuple(tuple(d) for d in v) for k, v in body["lineage"].items()}
            body["files"] = {k: tuple(v) for k, v in body.get("files", {}).items()}
            return Manifest(**body)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreError(
                f"{path}: damaged ({error}); `llmers store verify --quarantine` sets it aside"
            ) from error


def _replace(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, path)
