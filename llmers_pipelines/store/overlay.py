"""Versions in a place apart: read what is published, write only what differs, never below it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from .formats import StoreError
from .manifests import Manifest, ManifestStore


class Overlay(ManifestStore):
    """The assets ``own`` live below ``root``, as if they were published there; all others are
    those of ``below``, and cannot be written."""

    def __init__(self, root: Path, below: ManifestStore, own: Collection[str]) -> None:
        super().__init__(root)
        self.folder = root
        self.below = below
        self.own = frozenset(own)

    def current(self, dataset: str, name: str) -> Manifest | None:
        if name in self.own:
            return super().current(dataset, name)
        return self.below.current(dataset, name)

    def version(self, dataset: str, name: str, data_version: str) -> Manifest | None:
        if name in self.own:
            return super().version(dataset, name, data_version)
        return self.below.version(dataset, name, data_version)

    def versions(self, dataset: str, name: str) -> list[Manifest]:
        if name in self.own:
            return super().versions(dataset, name)
        return self.below.versions(dataset, name)

    def path(self, manifest: Manifest) -> Path:
        return super().path(manifest) if manifest.name in self.own else self.below.path(manifest)

    def write(self, manifest: Manifest) -> None:
        if manifest.name not in self.own:
            raise StoreError(f"{manifest.name} is published: an experiment does not write it")
        super().write(manifest)
