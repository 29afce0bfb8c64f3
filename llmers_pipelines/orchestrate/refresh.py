"""What is stale, what holds it, and the one run that would mend it: pure Python over manifests.

``compare`` judges a list of nodes for one data set. ``Watch`` does so again and again at the price
of a few ``stat`` calls while nothing moves.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import Settings
from ..data.schema import DataError
from ..plan import Champion, Node, Pin, Register, walk
from ..store.formats import StoreError
from ..store.manifests import Manifest, ManifestStore
from .applicable import applicable
from .attempts import Failures, Wishes, attempt_key
from .build import Loaded, Plan
from .context import HeldError, StepContext, StepError, why_held
from .publish import difference, wanted

SETTLED = 2.0  # seconds without a write before a file counts as written
FULL = 300.0  # seconds after which everything is compared again, whatever the file times say


@dataclass(frozen=True)
class Row:
    """One stale asset: why, and what has to be mended before it can be made again."""

    asset: str
    because: str
    held_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Look:
    """What one comparison of a data set found.

    ``roots``: asset -> combination (see ``attempt_key``) of those that can be made now and are
    behind nothing. ``request``: these and all that follows from them, in dependency order.
    ``waits``: a file that is still being written.
    """

    rows: tuple[Row, ...] = ()
    roots: Mapping[str, str] = field(default_factory=dict)
    request: tuple[str, ...] = ()
    waits: str = ""


def compare(
    nodes: Iterable[Node], ctx: StepContext, tried: Mapping[str, str] | None = None
) -> Look:
    """Return the stale ones of ``nodes`` (in dependency order) and what to run for them.

    ``tried``: combinations whose run ended without them; like failed ones they are left alone.
    """
    failures, tried = Failures(ctx.settings), tried or {}
    rows: dict[Node, Row] = {}
    roots: dict[str, str] = {}
    request: dict[Node, None] = {}
    for node in nodes:
        behind = [n for n in node.inputs if n in rows]
        why, key, held = _judge(node, ctx, failures, tried)
        if behind:
            why = why or f"behind {behind[0].name}"
            ready = [n in request for n in behind]
            # The gate judges what there is: a candidate that is held stays out of its way.
            enough = all(ready)
            if isinstance(node, Champion):
                there = any(ctx.manifests.current(ctx.dataset, n.name) for n in node.inputs)
                enough = any(ready) or (there and bool(key))
            go = enough and not held
            if not go:
                held = tuple(dict.fromkeys([*held, *(h for n in behind for h in rows[n].held_by)]))
        else:
            go = bool(key) and not held
            if go:
                roots[node.name] = key
        if why:
            rows[node] = Row(node.name, why, held)
            if go:
                request[node] = None
    return Look(tuple(rows.values()), roots, tuple(n.name for n in request))


def _judge(
    node: Node, ctx: StepContext, failures: Failures, tried: Mapping[str, str]
) -> tuple[str, str, tuple[str, ...]]:
    """Return (why ``node`` is stale by itself, its combination, what holds it)."""
    have = ctx.manifests.current(ctx.dataset, node.name)
    if have is not None and isinstance(node, Pin):
        return "", "", ()
    missing = "missing" if have is None else ""
    try:
        want = wanted(node, ctx)
    except HeldError as error:
        return missing or f"held: {error}", "", ()  # the held input says by what
    except StepError as error:
        return missing or f"held: {error}", "", ()
    except (ValueError, OSError) as error:  # a source that cannot be read
        return missing or str(error), "", (f"{node.name}: {error}",)
    why = missing if have is None else difference(have, want, ctx)
    if have is not None and not why and not have.held_by:
        return "", "", ()
    key = attempt_key(node, want, ctx.settings)
    if have is not None and not why:
        check = have.held_by[0]
        told = f"held: its blocking check {check} failed: {why_held(have)}"
        return told, "", (f"{node.name}: {check}",)
    failed = failures.get(ctx.dataset, node.name)
    if failed is not None and failed.key == key:
        return f"{why}; {failed.state}: {failed.error}", key, (f"{node.name}: {failed.state}",)
    if tried.get(node.name) == key:
        return why, key, (f"{node.name}: its last run ended without it",)
    return why, key, ()


def watched(plan: Plan, nodes: list[Node], ctx: StepContext) -> list[Node]:
    """Return those of ``nodes`` (what applies to the data set) that are kept fresh.

    These are the assets that were made once, those that a run was asked for and could not make,
    whole methods that were trained once (up to the gate), and what all of them need. A method whose
    settings changed has other keys: it takes the place of the one it was before. Nothing that was
    never asked for is started.
    """
    there = set(ctx.manifests.names(ctx.dataset)) | Wishes(ctx.settings).names(ctx.dataset)
    gone = _recipes_of(there - {n.name for n in plan.nodes}, ctx)
    used = [m for m in plan.methods if _in_use(m, there, gone)]
    roots: list[Node] = [n for n in nodes if n.name in there]
    roots += [m.register for m in used]
    needed = set(walk([r for r in roots if not isinstance(r, Champion)]))
    registered = {n for n in needed if isinstance(n, Register)}
    return [
        n for n in nodes
        if n in needed or (isinstance(n, Champion) and registered & set(n.inputs))
    ]  # fmt: skip


def _in_use(method: Loaded, there: set[str], replaced: set[str]) -> bool:
    own = {method.train.name, method.evaluate.name, method.register.name}
    return bool(own & there) or method.recipe.slug in replaced


def _recipes_of(names: Iterable[str], ctx: StepContext) -> set[str]:
    """Return the recipes of evaluations that the plan does not hold any more."""
    found = (ctx.manifests.current(ctx.dataset, n) for n in names if n.startswith("evaluations/"))
    return {str(m.info["recipe"]) for m in found if m is not None and m.info.get("recipe")}


class Remembered(ManifestStore):
    """A manifest store that parses a file once per version of the file."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._seen: dict[str, tuple[tuple[int, ...], Manifest]] = {}

    def current(self, dataset: str, name: str) -> Manifest | None:
        path = f"{self.root}/{dataset}/{name}/current.json"
        stamp = _stamp(path)
        if stamp is None:
            return None
        known = self._seen.get(path)
        if known is None or known[0] != stamp:
            known = self._seen[path] = (stamp, self._read(Path(path)))
        return known[1]


@dataclass
class Observer(StepContext):
    """A context that only looks: manifests are parsed once per version."""

    store: ManifestStore | None = None

    @property
    def manifests(self) -> ManifestStore:
        return self.store or super().manifests


class Watch:
    """The comparisons of all data sets, made again only where something moved."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        self.settings, self.plan = settings, plan
        self.store = Remembered(settings.data)
        self._last: dict[str, tuple[Any, float, Look]] = {}
        self._files: dict[str, tuple[str, ...]] = {}
        self._lock = threading.Lock()

    def datasets(self) -> list[str]:
        """Return the data sets that are described and of which something was asked for, by name."""
        from ..data.registry import description_files

        described = description_files(self.settings.home)
        found = {*self.store.datasets(), *Wishes(self.settings).datasets()}
        return sorted(found & set(described))

    def described(self) -> list[str]:
        """Return the names of all data sets that are described."""
        from ..data.registry import description_files

        return sorted(description_files(self.settings.home))

    def look(self, dataset: str, tried: Mapping[str, str] | None = None) -> Look:
        """Return what is stale now; while nothing moved this costs ``stat`` calls alone."""
        with self._lock:
            if dataset not in self._files:
                self._list_files(Observer(self.settings, dataset, store=self.store))
            # Taken before the comparison: what is written meanwhile moves the next one.
            moved = self._moved(dataset, tried)
            known = self._last.get(dataset)
            if known and known[0] == moved and time.monotonic() - known[1] < FULL:
                return known[2]
            if busy := self._unsettled(dataset):
                return Look(known[2].rows if known else (), waits=busy)
            look = self._compare(dataset, tried)
            self._last[dataset] = (moved, time.monotonic(), look)
            return look

    def _list_files(self, ctx: StepContext) -> None:
        try:
            self._files[ctx.dataset] = tuple(files_of(ctx))
        except DataError:  # the comparison will say it
            self._files[ctx.dataset] = ()

    def _compare(self, dataset: str, tried: Mapping[str, str] | None) -> Look:
        ctx = Observer(self.settings, dataset, store=self.store)
        try:
            self._list_files(ctx)
            nodes, _ = applicable(self.plan, list(self.plan.nodes), ctx.description)
            return compare(watched(self.plan, nodes, ctx), ctx, tried)
        except (DataError, StoreError) as error:
            return Look((Row("catalog/items", str(error), (str(error),)),))

    def _moved(self, dataset: str, tried: Mapping[str, str] | None) -> Any:
        data = self.settings.data
        places = [f"{data}/{kind}/{dataset}" for kind in ("manifests", "warehouse", "refresh")]
        files = tuple(_stamp(path) for path in self._files.get(dataset, ()))
        return tuple(_below(p) for p in places), files, tuple(sorted((tried or {}).items()))

    def _unsettled(self, dataset: str) -> str:
        """Return a source that was written a moment ago: its writer may not be done."""
        now = time.time()
        for path in self._files.get(dataset, ()):
            stamp = _stamp(path)
            if stamp is not None and 0 <= now - stamp[0] / 1e9 < SETTLED:
                return path
        return ""


def files_of(ctx: StepContext) -> Iterator[str]:
    """Yield every file and folder whose change may make an asset of the data set stale."""
    description, settings = ctx.description, ctx.settings
    yield str(description.file)
    folder = description.folder(settings.data_root)
    told = [*description.sources.values(), *description.recorded.values(),
            *description.rankings.values()]  # fmt: skip
    for path in dict.fromkeys(source.path for source in told):
        if "*" in path:
            found = sorted(folder.glob(path))
            yield from (str(p) for p in dict.fromkeys(f.parent for f in found))
            yield from map(str, found)
        else:
            yield str(folder / path)
            yield f"{folder / path}.dvc"
    for check in settings.safety.checks if settings.safety else ():
        yield from check.options.get("words", ())
    for name in (settings.model, settings.adapter, settings.encoder.partition("?")[0]):
        if name and Path(name).expanduser().is_dir():
            yield from (e.path for e in os.scandir(Path(name).expanduser()) if e.is_file())


def _stamp(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _below(root: str) -> tuple[tuple[str, int], ...]:
    """Return names and times of the folders two levels below ``root``: one per asset.

    Whatever is written, renamed or removed in an asset's folder moves the folder's time.
    """
    found = []
    try:
        for prefix in os.scandir(root):
            if prefix.is_dir():
                found += [(e.path, e.stat().st_mtime_ns) for e in os.scandir(prefix.path)]
    except OSError:
        pass
    return tuple(sorted(found))
