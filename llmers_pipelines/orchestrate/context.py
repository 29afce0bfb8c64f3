"""What a step sees: settings, the data set, stored versions, and how to load an input."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..config import Settings
from ..data.training import TrainingData
from ..data.vectors import VectorTable
from ..data.weights import NamedWeights
from ..plan import Derive, Embed, Node, Pin, Table, Train, Tune
from ..store.manifests import CheckOutcome, Manifest, ManifestStore
from ..store.overlay import Overlay
from .progress import Reporter

HEADS = "heads.safetensors"  # what a tuning trains beside the adapter, or in its place

NO_CUDA = "device auto: this torch finds no CUDA device, so the step runs on the CPU"

QUARANTINE = "quarantine.parquet"  # rows that a step could not use, beside those that it could


class StepError(RuntimeError):
    """A step cannot run; the message says what is missing and the mend.

    ``report``: what the run's report tells of the step all the same (counts, a state of its own).
    """

    def __init__(self, message: str, report: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.report = report or {}


class HeldError(StepError):
    """An input failed a blocking check: everything downstream waits until it passes."""


@dataclass(frozen=True)
class Outcome:
    """What a verb hands to publication.

    ``save(folder)`` writes the artifact; ``data_version`` hashes its content.
    """

    save: Callable[[Path], None]
    data_version: str
    rows: int = 0
    counts: dict[str, Any] = field(default_factory=dict)
    checks: tuple[CheckOutcome, ...] = ()
    flags: tuple[str, ...] = ()
    columns: tuple[tuple[str, str, str], ...] = ()
    lineage: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    verify: Callable[[Path], tuple[CheckOutcome, ...]] | None = None  # checks of the stored files
    beside: Callable[[Path], None] | None = None  # writes QUARANTINE, no part of the version
    keep: Any = None  # the artifact itself, so that the next step need not read it back


@dataclass
class StepContext:
    """One run over one data set."""

    settings: Settings
    dataset: str
    run_id: str = ""
    log: Callable[[str], None] = lambda text: None
    limits: dict[str, Any] = field(default_factory=dict)  # outside of the digest: budget, device
    event: Callable[[str, Any], None] = lambda text, figures: None  # progress that lasts
    apart: Overlay | None = None  # where an experiment with other models keeps what it makes
    _told: set[str] = field(default_factory=set)
    _cache: dict[tuple[str, str], Any] = field(default_factory=dict)

    def reporter(self) -> Reporter:
        """Return what a long step tells its progress to."""
        return Reporter(lambda text: self.log(text), lambda text, f: self.event(text, f))

    @property
    def manifests(self) -> ManifestStore:
        return self.apart or ManifestStore(self.settings.data)

    @property
    def root(self) -> Path:
        """Versions, fits and cells lie below it; answers, vectors and bills are always shared."""
        return self.apart.folder if self.apart else self.settings.data

    @cached_property
    def description(self) -> Any:
        from ..data.registry import find_dataset

        return find_dataset(self.dataset, self.settings.home)

    @property
    def field_kinds(self) -> dict[str, str]:
        """Columns of the item table that carry words or pictures, with kinds, in declared order."""
        fields = self.description.items.fields.items()
        return {name: f.kind for name, f in fields if not f.coded and not f.extract}

    @cached_property
    def source_version(self) -> str:
        """Content hash of the data set's files and of how its description reads them."""
        from ..data.catalog import source_version

        cache = self.settings.data / "sources" / f"{self.dataset}.json"  # size, time, hash
        known = json.loads(cache.read_text()) if cache.is_file() else {}
        before = dict(known)
        version = source_version(self.description, self.settings.data_root, known=known)
        if known != before:
            cache.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=cache.parent, delete=False) as file:
                json.dump(known, file)
            os.replace(file.name, cache)
        return version

    @property
    def time_column(self) -> str:
        return "timestamp"

    @property
    def device(self) -> str:
        """Where tensors live: the flag's or the configured device; ``auto`` takes CUDA if there."""
        wanted = self.limits.get("device") or self.settings.device
        if wanted != "auto":
            return wanted
        import torch

        if torch.cuda.is_available():
            return "cuda"
        if "device" not in self._told:
            self._told.add("device")
            self.log(NO_CUDA)
        return "cpu"

    def manifest(self, node: Node) -> Manifest:
        """Return the manifest of an input; raise where it is missing or held."""
        found = self.manifests.current(self.dataset, node.name)
        if found is None:
            raise StepError(
                f"{node.name} has not been materialized for data set {self.dataset!r}; run "
                f"`llmers run {node.name} --dataset {self.dataset}`"
            )
        if found.held_by:
            raise HeldError(
                f"{node.name} of data set {self.dataset!r} failed its blocking check "
                f"{found.held_by[0]!r}: {why_held(found)}; mend it and materialize "
                f"{node.name} again"
            )
        return found

    def stands_for(self, node: Node) -> tuple[Node, Manifest]:
        """Return what is loaded for ``node``: itself now, or the pinned version of a pin's node."""
        manifest = self.manifest(node)
        if not isinstance(node, Pin):
            return node, manifest
        pointer = manifest.info
        pinned = self.manifests.version(self.dataset, pointer["asset"], pointer["data_version"])
        if pinned is None or not self.manifests.path(pinned).is_dir():
            raise StepError(
                f"{node.name}: the pinned version of {pointer['asset']} was pruned; run "
                f"`llmers pin move {node.name} --dataset {self.dataset}`"
            )
        return node.node, pinned

    def load(self, node: Node) -> Any:
        """Return the current artifact of ``node``."""
        return self.load_version(node, self.manifest(node))

    def load_version(self, node: Node, manifest: Manifest) -> Any:
        key = (manifest.name, manifest.data_version)
        if key not in self._cache:
            self._cache[key] = _read(node, self.manifests.path(manifest), self, manifest)
        return self._cache[key]

    def remember(self, manifest: Manifest, artifact: Any) -> None:
        if artifact is not None:
            self._cache[(manifest.name, manifest.data_version)] = artifact


def why_held(manifest: Manifest) -> str:
    """Return what the first failed blocking check of a held asset found."""
    failed = next(c for c in manifest.checks if c.blocking and not c.passed)
    return str(failed.details.get("why") or failed.details)


def _read(node: Node, folder: Path, ctx: StepContext, manifest: Manifest) -> Any:
    if isinstance(node, Pin):
        return ctx.load_version(*ctx.stands_for(node))
    if isinstance(node, Table) and node.table == "splits":
        return TrainingData.load(folder)
    if isinstance(node, Embed) or (isinstance(node, Derive) and node.how.output == "vectors"):
        return VectorTable.load(folder)
    if isinstance(node, Tune) and (folder / HEADS).is_file():
        return NamedWeights.load(folder / HEADS)
    if isinstance(node, Train) or not (folder / "rows.parquet").is_file():
        return folder
    return pq.read_table(folder / "rows.parquet")


def save_rows(table: pa.Table) -> Callable[[Path], None]:
    """Return a saver that writes ``table`` as ``rows.parquet`` (zstd, deterministic bytes)."""

    def save(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / "rows.parquet", compression="zstd")

    return save


def hash_table(table: pa.Table) -> str:
    """Hash the rows of a table: column names, types and values, independent of chunking."""
    import hashlib

    h = hashlib.sha256(str([(f.name, str(f.type)) for f in table.schema]).encode())
    sink = pa.BufferOutputStream()
    combined = table.combine_chunks()
    # One batch of freshly concatenated arrays: equal rows give equal bytes.
    with pa.ipc.new_stream(sink, combined.schema.remove_metadata()) as writer:
        for batch in combined.replace_schema_metadata(None).to_batches():
            writer.write_batch(batch)
    h.update(sink.getvalue())
    return h.hexdigest()[:16]
