"""One look at everything stored: what is damaged, what hangs on it, what making it again costs.

What a newer version wrote is named, not touched, and does not end the look.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..prices import Price
from .audit_answers import audit_answers, audit_outbox
from .audit_work import audit_cells, audit_vectors
from .findings import Fault, Look, Report
from .fingerprints import differences
from .formats import FormatError, StoreError
from .hanging import downstream, readable
from .manifests import Manifest, ManifestStore
from .salvage import set_aside
from .sqlite_file import Database, audit_databases


def audit(
    data: Path, prices: Mapping[str, Price], *, mend: bool = False,
    models: Callable[[], Iterable[tuple[Path, str, bool]]] | None = None,
    databases: Iterable[Database] = (),
) -> Report:  # fmt: skip
    """Check everything below ``data``; ``mend`` moves what is damaged to ``data/quarantine``.

    ``models`` yields each registered model or bundle with what is wrong of it ("" where nothing
    is), and whether it has a list of all its files.
    """
    look = Look(data, prices, Report(), data / "quarantine" if mend else None)
    report, manifests = look.report, ManifestStore(data)
    _manifests(manifests, report, look.aside)
    _warehouse(manifests, report, look.aside)
    audit_cells(look)
    audit_vectors(look)
    audit_answers(look)
    audit_outbox(look)
    audit_databases(look, databases)
    for path, problem, listed in models() if models is not None else ():
        report.count("models", listed=listed)
        if problem:
            report.faults.append(Fault("models", str(path), problem, "register the model again"))
    return report


def _manifests(manifests: ManifestStore, report: Report, aside: Path | None) -> None:
    for path, error in list(manifests.damaged()):
        if isinstance(error, FormatError):
            report.newer("manifests", path, error)
            continue
        problem = str(error)
        dataset = path.relative_to(manifests.root).parts[0]
        asset = "/".join(path.relative_to(manifests.root).parts[1:3])
        moved, mend = "", "the asset is made again by its next run"
        if aside is not None:
            moved = str(set_aside(path, aside / "manifests", {"path": path, "problem": problem}))
        if path.name == "current.json":
            mend = _restore(manifests, dataset, asset, restore=aside is not None)
        report.faults.append(Fault("manifests", str(path), problem, mend,
                                   (f"{dataset}: {asset}",), moved))  # fmt: skip


def _restore(manifests: ManifestStore, dataset: str, asset: str, *, restore: bool) -> str:
    """Put the newest whole version in the place of a damaged current manifest."""
    whole = []
    for path in sorted((manifests.root / dataset / asset).glob("*.json")):
        try:
            found = manifests.version(dataset, asset, path.stem)
        except StoreError:
            continue
        if found is not None and path.name != "current.json":
            whole.append(found)
    if not whole:
        return "the asset is made again by its next run"
    newest = max(whole, key=lambda m: m.created)
    if restore:
        manifests.write(newest)
        return f"its newest version {newest.data_version} stands again"
    return f"--quarantine puts its newest version {newest.data_version} in its place"


def _warehouse(manifests: ManifestStore, report: Report, aside: Path | None) -> None:
    again: dict[str, dict[str, Any]] = {}
    for dataset in manifests.datasets():
        current = {m.name: m for m in readable(manifests, dataset)}
        for name in manifests.names(dataset):
            for manifest in _whole_versions(manifests, dataset, name):
                folder = manifests.path(manifest)
                if not folder.is_dir():
                    continue  # pruned, or its files were removed: the next run says so
                report.count("warehouse versions", listed=bool(manifest.files))
                faults = differences(folder, manifest.files)
                if not faults:
                    continue
                live = name in current and current[name].data_version == manifest.data_version
                moved = ""
                if aside is not None:
                    moved = str(set_aside(folder, aside / "warehouse" / dataset / name,
                                          {"path": folder, "problems": faults}))  # fmt: skip
                reads = downstream(current.values(), {name}) if live else [name]
                mend = "`llmers store verify --quarantine`, then `llmers run`" if live else (
                    "an older version: nothing current hangs on it")  # fmt: skip
                names = tuple(f"{dataset}: {n}" for n in reads)
                report.faults += [Fault("warehouse", str(folder), f, mend, names, moved)
                                  for f in faults]  # fmt: skip
                if live:
                    again[f"{dataset}: {name}"] = {"seconds": manifest.seconds, "llm_calls": 0,
                                                   "made": manifest.created}  # fmt: skip
    if again:
        report.regeneration["warehouse"] = again


def _whole_versions(manifests: ManifestStore, dataset: str, name: str) -> Iterator[Manifest]:
    for path in sorted((manifests.root / dataset / name).glob("*.json")):
        if path.name != "current.json":
            try:
                found = manifests.version(dataset, name, path.stem)
            except StoreError:
                continue
            if found is not None:
                yield found


def leftovers(data: Path, *, older_than: float = 24 * 3600) -> list[Path]:
    """Return temporary files and folders of processes that died at least so many seconds ago."""
    limit = time.time() - older_than
    patterns = ("warehouse/*/*/*/.tmp-*", "cells/*/.tmp-*", "cells/*/.old-*", "vectors/*/.tmp-*",
                "vectors/*/.old-*", "manifests/*/*/*/.tmp-*", "fits/*/*/.tmp-*",
                "encoders/*/*/.tmp-*", "bundle-*", "responses/.writing-*.tmp",
                ".pruned-*")  # fmt: skip
    found = [p for pattern in patterns for p in data.glob(pattern)]
    return [p for p in found if os.lstat(p).st_mtime < limit]
