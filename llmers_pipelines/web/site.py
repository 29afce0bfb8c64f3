"""What the pages read from: one home, a bounded cache, the registry, the served champions."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any

from ..config import Settings
from ..orchestrate.build import Plan
from ..orchestrate.context import StepError
from ..orchestrate.serving import champion_of
from ..orchestrate.trace.answers import answers
from ..orchestrate.trace.row import registry_aliases
from ..orchestrate.trace.stored import CACHE_BYTES, Cache, Stored
from ..store.manifests import Manifest, ManifestStore

_log = logging.getLogger(__name__)
ALIASES_SECONDS = 10.0  # how long the registry's word stands
SCORERS = 2  # served models that are kept open


@dataclass
class Site:
    """The home that is shown. Safe among the threads that answer requests."""

    settings: Settings
    plan: Plan
    cache: Cache = field(default_factory=lambda: Cache(CACHE_BYTES))
    _stored: dict[str, Stored] = field(default_factory=dict)
    _aliases: dict[str, tuple[float, Mapping[str, str]]] = field(default_factory=dict)
    _scorers: dict[tuple[str, str], Any] = field(default_factory=dict)
    _lock: Any = field(default_factory=Lock)

    @cached_property
    def manifests(self) -> ManifestStore:
        return ManifestStore(self.settings.data)

    def datasets(self) -> list[str]:
        """Return the data sets of which something is stored."""
        return self.manifests.datasets()

    def stored(self, dataset: str) -> Stored:
        """Return what is stored of a data set; ``StepError`` names the known ones."""
        known = self.datasets()
        if dataset not in known:
            raise StepError(f"nothing is stored of a data set {dataset!r}; stored: "
                            f"{', '.join(known) or 'nothing yet'}")  # fmt: skip
        return self._stored.setdefault(
            dataset, Stored(self.settings, dataset, self.plan, self.cache)
        )

    def manifest(self, stored: Stored, asset: str, version: str = "") -> Manifest:
        """Return the manifest of an asset's newest or named version."""
        if not version:
            return stored.current(asset)
        found = stored.version(asset, version)
        if found is None:
            raise StepError(f"{asset}: no version {version!r} is stored")
        return found

    def warm(self) -> None:
        """Load what the first page would wait for: the registry's library, the answers' keys."""
        answers(self.cache, self.settings).known(["0" * 64])
        self.aliases("none")

    @cached_property
    def _reader(self) -> Any:
        return registry_aliases(self.settings)

    def aliases(self, name: str) -> Mapping[str, str]:
        """Return alias -> version of a registered model, ten seconds old where it answers."""
        with self._lock:
            now = time.monotonic()
            at, found = self._aliases.get(name, (-ALIASES_SECONDS, {}))
            if now - at >= ALIASES_SECONDS:
                try:
                    found = self._reader(name)
                except Exception as error:  # a registry that is away hides aliases, not the page
                    _log.warning("the registry cannot be asked: %s", error)
                self._aliases[name] = (now, found)
            return found

    def champion(self, dataset: str, task: str) -> tuple[Any, str]:
        """Return the scorer of a task's champion and its version; torch is loaded only here."""
        with self._lock:
            return champion_of(self.settings, dataset, task, kept=self._scorers, most=SCORERS)
