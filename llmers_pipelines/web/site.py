"""What the pages read from: one home, a bounded cache, the registry, the served champions."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any

from ..config import Settings
from ..orchestrate.build import Plan
from ..orchestrate.context import StepError
from ..orchestrate.serving import champion_of
from ..orchestrate.trace.answers import answers
from ..orchestrate.trace.models import Aliases
from ..orchestrate.trace.recommendation import explain_recommendation
from ..orchestrate.trace.row import no_aliases, registry_aliases
from ..orchestrate.trace.stored import CACHE_BYTES, Cache, Stored, verb_of
from ..store.manifests import Manifest, ManifestStore

_log = logging.getLogger(__name__)
SECONDS = 5.0  # how long a data set's description and the registry's word stand
SCORERS = 2  # served models that are kept open


@dataclass
class Site:
    """The home that is shown. Safe among the threads that answer requests.

    ``renew`` reads settings and plan anew; it is called when ``llmers.toml`` has changed.
    """

    settings: Settings
    plan: Plan
    renew: Callable[[], tuple[Settings, Plan]] | None = None
    cache: Cache = field(default_factory=lambda: Cache(CACHE_BYTES))
    _stored: dict[str, tuple[float, Stored]] = field(default_factory=dict)
    _aliases: dict[str, tuple[float, Mapping[str, str]]] = field(default_factory=dict)
    _scorers: dict[tuple[str, str], Any] = field(default_factory=dict)
    _lock: Any = field(default_factory=Lock)
    _reader: Aliases = no_aliases
    _serving: Any = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self._read = self._changed()

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
        with self._lock:
            self._follow()
            made, found = self._stored.get(dataset, (-SECONDS, None))
            if found is None or time.monotonic() - made >= SECONDS:
                found = Stored(self.settings, dataset, self.plan, self.cache)
                self._stored[dataset] = (time.monotonic(), found)
            return found

    def _changed(self) -> int:
        try:
            file = self.settings.config_file
            return file.stat().st_mtime_ns if file is not None else 0
        except OSError:
            return 0

    def _follow(self) -> None:
        """Take over a changed ``llmers.toml``; one that cannot be read leaves what stands."""
        now = self._changed()
        if self.renew is None or now == self._read:
            return
        self._read = now
        try:
            self.settings, self.plan = self.renew()
            self._stored.clear()
        except ValueError as error:  # ConfigError, PlanError
            _log.warning("llmers.toml has changed and cannot be used: %s", error)

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

    def preload(self) -> None:
        """Answer one recommendation of the newest champions, so that no person waits for torch.

        Meant for a thread of its own; a home without a champion loads nothing.
        """
        found = [m for name in self.datasets() for m in self.stored(name).all()
                 if verb_of(m) == "champion" and m.counts.get("champion", "none") != "none"]
        for gate in sorted(found, key=lambda m: m.created, reverse=True)[:SCORERS]:
            task = gate.name.split("__", 1)[1]
            try:
                scorer, _ = self.champion(gate.dataset, task)
                if len(users := scorer.bundle.users):
                    stored = self.stored(gate.dataset)
                    explain_recommendation(stored, self.champion, task, users.id(1))
            except Exception as error:  # the page will say it, to whoever opens it
                _log.warning("%s of %s is not opened yet: %s", gate.name, gate.dataset, error)

    def aliases(self, name: str) -> Mapping[str, str]:
        """Return alias -> version of a registered model, five seconds old where it answers."""
        with self._lock:
            now = time.monotonic()
            at, found = self._aliases.get(name, (-SECONDS, {}))
            if now - at >= SECONDS:
                try:
                    if self._reader is no_aliases:  # a new home has no registry yet
                        self._reader = registry_aliases(self.settings)
                    found = self._reader(name)
                except Exception as error:  # a registry that is away hides aliases, not the page
                    _log.warning("the registry cannot be asked: %s", error)
                self._aliases[name] = (now, found)
            return found

    def champion(self, dataset: str, task: str) -> tuple[Any, str]:
        """Return the scorer of a task's champion and its version; torch is loaded only here."""
        with self._serving:
            return champion_of(self.settings, dataset, task, kept=self._scorers, most=SCORERS)
