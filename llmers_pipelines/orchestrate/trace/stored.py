"""Stored versions as lineage reads them: by version, also held ones, from a bounded cache."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...config import Settings
from ...data.training import TrainingData
from ...data.vectors import VectorTable
from ...plan import Node
from ...store.manifests import Manifest, ManifestStore
from ..build import Plan
from ..context import StepContext, StepError

CACHE_BYTES = 1 << 29
_VERBS = {"catalog": "table", "llm_embeddings": "embed", "features": "derive",
          "recommenders": "train", "student_weights": "distill", "teacher_states": "teach",
          "tuned_models": "tune",
          "evaluations": "evaluate", "registry": "register"}  # fmt: skip
_ASSET, _VERSION = re.compile(r"[a-z0-9_]+/[a-z0-9_]+"), re.compile(r"[A-Za-z0-9_-]+")
MODELS = ("recommenders", "student_weights")


class Cache:
    """Opened artifacts, least recently used first to go; safe among threads."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._kept: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
        self._size = 0
        self._lock = RLock()

    def get(self, key: Any, make: Any) -> Any:
        """Return what is kept under ``key``, else ``make()``, which is kept while there is room."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0]
        value = make()
        size = _bytes(value)
        with self._lock:
            if key not in self._kept and size <= self._limit:
                self._kept[key] = (value, size)
                self._size += size
            while self._size > self._limit:
                _, (_, gone) = self._kept.popitem(last=False)
                self._size -= gone
        return value

    @property
    def size(self) -> int:
        return self._size

    def __len__(self) -> int:
        return len(self._kept)


def _bytes(value: Any) -> int:
    """Return about how much memory an artifact holds; memory-mapped vectors hold none."""
    if isinstance(value, pa.Table):
        return value.nbytes
    if isinstance(value, VectorTable):
        return 100 * len(value.ids) + value.mask.nbytes
    if isinstance(value, TrainingData):
        arrays = (value.user, value.item, value.time, value.split, value.rating, value.label)
        fields = [f.codes for f in (*value.item_fields.values(), *value.user_fields.values())]
        held = sum(a.nbytes for a in (*arrays, *fields) if a is not None)
        return held + 200 * (value.n_users + value.n_items)
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, dict):  # titles
        return 200 * len(value)
    if isinstance(value, Manifest):
        return 4096 + len(str(value.info))
    return 4096


@dataclass
class Stored:
    """The stored assets of one data set. ``plan`` gives the tasks that rendered the prompts.

    Unlike a run it reads any version, and assets that a failed check holds: a person who looks for
    the reason needs to see them.
    """

    settings: Settings
    dataset: str
    plan: Plan
    cache: Cache = field(default_factory=Cache)

    @property
    def manifests(self) -> ManifestStore:
        return ManifestStore(self.settings.data)

    @cached_property
    def context(self) -> StepContext:
        return StepContext(self.settings, self.dataset)

    @cached_property
    def _nodes(self) -> dict[str, Node]:
        return {node.name: node for node in self.plan.nodes}

    def node(self, name: str) -> Node | None:
        """Return the node of an asset; None where ``llmers.toml`` does not load it now."""
        return self._nodes.get(name)

    def newest(self, name: str) -> Manifest | None:
        """Return the newest manifest of an asset; None where it was never materialized."""
        return self._read(name, "current")

    def current(self, name: str) -> Manifest:
        """Return the newest manifest of an asset; ``StepError`` names what is stored instead."""
        found = self.newest(name)
        if found is None:
            known = ", ".join(self.manifests.names(self.dataset)) or "none"
            raise StepError(
                f"{name} has not been materialized for data set {self.dataset!r}; stored: {known}"
            )
        return found

    def version(self, name: str, data_version: str) -> Manifest | None:
        return self._read(name, data_version)

    def all(self) -> list[Manifest]:
        """Return the newest manifest of every asset, by name."""
        found = map(self.newest, self.manifests.names(self.dataset))
        return [manifest for manifest in found if manifest is not None]

    def _read(self, name: str, version: str) -> Manifest | None:
        if not _ASSET.fullmatch(name) or not _VERSION.fullmatch(version):
            return None  # what is asked for may come from an address; it never names a path
        store = self.manifests
        path = store.root / self.dataset / name / f"{version}.json"
        try:
            state = path.stat()
        except OSError:
            return None
        key = ("manifest", path, state.st_mtime_ns, state.st_size, state.st_ino)
        read = store.current if version == "current" else store.version
        words = (self.dataset, name) if version == "current" else (self.dataset, name, version)
        return self.cache.get(key, lambda: read(*words))

    def inputs(self, manifest: Manifest) -> Iterator[tuple[str, Manifest | None]]:
        """Yield each input with the version that was read; None where it is stored no more."""
        given: Mapping[str, str] = manifest.inputs
        if not given and manifest.info.get("asset") and manifest.info.get("data_version"):  # a pin
            given = {str(manifest.info["asset"]): str(manifest.info["data_version"])}
        for name, version in given.items():
            yield name, self.version(name, version.split(" ")[0])

    def folder(self, manifest: Manifest) -> Path:
        return self.manifests.path(manifest)

    def load(self, manifest: Manifest) -> Any:
        """Return a version's artifact: a table, vectors, a log, or its folder."""
        pinned = manifest.info.get("asset") if not manifest.inputs else None
        if pinned:
            target = self.version(str(pinned), str(manifest.info["data_version"]))
            if target is None:
                raise StepError(f"{manifest.name}: the pinned version of {pinned} was pruned")
            return self.load(target)
        folder = self.folder(manifest)
        if not folder.is_dir():
            raise StepError(
                f"{manifest.name} @ {manifest.data_version}: its files were removed (pruned); "
                "what its manifest tells is all that is left"
            )
        key = ("artifact", self.dataset, manifest.name, manifest.data_version)
        return self.cache.get(key, lambda: _open(folder))

    def titles(self, manifest: Manifest | None = None) -> dict[str, str]:
        """Return title by item id, of the catalog's newest version or of ``manifest``."""
        manifest = manifest or self.newest("catalog/items")
        if manifest is None or not self.folder(manifest).is_dir():
            return {}
        key = ("titles", self.dataset, manifest.data_version)
        return self.cache.get(key, lambda: _titles(self.load(manifest)))


def verb_of(manifest: Manifest) -> str:
    """Return the verb that made a version; what a prompt task names is its own prefix."""
    prefix, slug = manifest.name.split("/", 1)
    if prefix == "features" and slug.startswith("pin__"):
        return "pin"
    if prefix == "registry" and slug.startswith("champion__"):
        return "champion"
    return _VERBS.get(prefix, "generate")


def _open(folder: Path) -> Any:
    if (folder / "log.npz").is_file():
        return TrainingData.load(folder)
    if (folder / "vectors.npy").is_file():
        return VectorTable.load(folder)
    if (folder / "rows.parquet").is_file():
        return pq.read_table(folder / "rows.parquet")
    return folder


def _titles(items: Any) -> dict[str, str]:
    if not isinstance(items, pa.Table) or "title" not in items.column_names:
        return {}
    pairs = zip(items["item_id"].to_pylist(), items["title"].to_pylist(), strict=True)
    return {str(item): title for item, title in pairs if title}


class AsMade(StepContext):
    """A step's view of the versions that ``manifest`` was made from, narrowed to one entity.

    ``load(over)`` returns that entity's row alone, so that its prompt costs no other's.
    """

    def __init__(self, stored: Stored, manifest: Manifest, over: str, column: str, row: str):
        super().__init__(stored.settings, stored.dataset)
        self._stored, self._over, self._column, self._row = stored, over, column, row
        self._made = dict(stored.inputs(manifest))
        self.__dict__["description"] = stored.context.description

    def manifest(self, node: Node) -> Manifest:
        found = self._made.get(node.name)
        if found is None:
            raise StepError(f"the version of {node.name} that was read is stored no more")
        return found

    def load(self, node: Node) -> Any:
        import pyarrow.compute as pc

        artifact = self._stored.load(self.manifest(node))
        narrow = isinstance(artifact, pa.Table) and self._column in artifact.column_names
        if narrow and (node.name == self._over or node.prefix == "features"):
            return artifact.filter(pc.equal(artifact[self._column], self._row))
        return artifact
