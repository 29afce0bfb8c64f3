"""One look at everything stored: what is damaged, what hangs on it, what making it again costs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..prices import Price
from .fingerprints import differences, read_fingerprint
from .formats import FormatError, StoreError
from .manifests import Manifest, ManifestStore
from .responses import ResponseStore
from .salvage import Damage, examine, quarantine, set_aside
from .usage import money, usage
from .vectors import VectorStore

RECORDED = " (recorded)"  # how the model column ends where answers came from a file


@dataclass(frozen=True)
class Fault:
    """One damaged thing. ``store``: answers, vectors, manifests, warehouse, cells, models."""

    store: str
    path: str
    problem: str
    mend: str
    assets: tuple[str, ...] = ()  # "data set: asset" that read it
    aside: str = ""  # where it was moved to


@dataclass
class Report:
    """What an audit found. ``regeneration``: calls, tokens and money of lost answers, and more."""

    faults: list[Fault] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)
    no_checksum: dict[str, int] = field(default_factory=dict)
    regeneration: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return {"ok": not self.faults, **asdict(self)}

    def count(self, what: str, *, listed: bool = True) -> None:
        self.checked[what] = self.checked.get(what, 0) + 1
        if not listed:
            self.no_checksum[what] = self.no_checksum.get(what, 0) + 1


def audit(
    data: Path, prices: Mapping[str, Price], *, mend: bool = False,
    models: Callable[[], Iterable[tuple[Path, str]]] | None = None,
) -> Report:  # fmt: skip
    """Check everything below ``data``; ``mend`` moves what is damaged to ``data/quarantine``.

    ``models`` yields each served bundle with what is wrong of it ("" where nothing is).
    """
    report = Report()
    aside = data / "quarantine" if mend else None
    manifests = ManifestStore(data)
    _manifests(manifests, report, aside)
    _warehouse(manifests, report, aside)
    _cells(data, report, aside)
    _vectors(data, manifests, report, aside)
    _answers(data, manifests, prices, report, aside)
    for path, problem in models() if models is not None else ():
        report.count("models")
        if problem:
            report.faults.append(Fault("models", str(path), problem, "register the model again"))
    return report


def _answers(
    data: Path, manifests: ManifestStore, prices: Mapping[str, Price], report: Report,
    aside: Path | None,
) -> None:  # fmt: skip
    store = ResponseStore(data / "responses")
    report.checked["answer segments"] = len(store.files())
    damages: list[tuple[Damage, str]] = []
    for segment, damage, good in examine(store.segments):
        moved = ""
        if aside is not None:
            moved = str(quarantine(store.segments, segment, damage, good, aside / "responses"))
        damages.append((damage, moved))
    if not damages:
        return
    keys = {x.key for d, _ in damages for x in d.lost if x.key}
    gone = keys - set(store.lookup(k for k in keys if _is_key(k)))
    unknown = any(d.whole or any(not _is_key(x.key) for x in d.lost) for d, _ in damages)
    assets = _hanging(manifests, gone, store if unknown else None)
    for damage, moved in damages:
        names = tuple(assets) if damage.lost or damage.whole else ()
        for line in damage.lines():
            report.faults.append(Fault("answers", str(damage.path), line,
                                       "the lost rows are asked again by the next run of the "
                                       "assets", names, moved))  # fmt: skip
    report.regeneration["answers"] = _cost(
        [d for d, _ in damages], gone, store, prices, list(assets)
    )


def _is_key(text: str | None) -> bool:
    return bool(text) and len(text) == 64 and set(text) <= set("0123456789abcdef")


def _cost(
    damages: list[Damage], gone: set[str], store: ResponseStore,
    prices: Mapping[str, Price], assets: list[str],
) -> dict[str, Any]:  # fmt: skip
    """Return calls, tokens and money of asking the lost rows again.

    A lost row whose tokens cannot be read, and the rows of a segment without a readable footer,
    count as the mean of what is stored, in proportion to bytes.
    """
    kept = usage(store.segments)
    mean = {n: kept[n] / max(kept["rows"], 1) for n in ("tokens_in", "tokens_out")}
    rows: dict[str, dict[str, Any]] = {}
    estimated = recorded = 0
    for x in (x for d in damages for x in d.lost if not _is_key(x.key) or x.key in gone):
        if (x.model or "").endswith(RECORDED):
            recorded += 1  # read again from their file
            continue
        blank = x.tokens_in is None or x.tokens_out is None
        estimated += blank
        rows.setdefault(x.key or f"{len(rows)}", {
            "model": x.model,
            "tokens_in": mean["tokens_in"] if blank else x.tokens_in,
            "tokens_out": mean["tokens_out"] if blank else x.tokens_out,
        })  # fmt: skip
    per_row = kept["bytes"] / max(kept["rows"], 1)
    lost = sum(d.size for d in damages if d.whole)
    guess = round(lost / per_row) if per_row else 0
    tops = sorted(kept["groups"], key=lambda g: -g["answers"])
    whole = [{"model": tops[0]["model"] if tops else None, **mean}] * guess
    every = [*rows.values(), *whole]
    return {
        "calls": len(every), "recorded_rows": recorded,
        "tokens_in": round(sum(r["tokens_in"] for r in every)),
        "tokens_out": round(sum(r["tokens_out"] for r in every)),
        "money": money(prices, every), "estimated_rows": estimated + guess,
        "unreadable_segments": sum(d.whole for d in damages), "assets": assets,
    }  # fmt: skip


def _hanging(
    manifests: ManifestStore, gone: set[str], store: ResponseStore | None
) -> dict[str, None]:
    """Return "data set: asset" of what reads lost answers, and of everything downstream.

    With ``store`` any answer that an asset names and the store lacks counts as lost.
    """
    found: dict[str, None] = {}
    for dataset in manifests.datasets():
        current = list(_readable(manifests, dataset))
        touched = set()
        for manifest in current:
            keys = answer_keys(manifests.path(manifest))
            if keys & gone or (store is not None and keys - store.known(filter(_is_key, keys))):
                touched.add(manifest.name)
        found |= dict.fromkeys(f"{dataset}: {n}" for n in downstream(current, touched))
    return found


def answer_keys(folder: Path) -> set[str]:
    """Return the keys of the answers that a stored table was made from; none for other assets."""
    path = folder / "rows.parquet"
    try:
        names = pq.read_schema(path).names if path.is_file() else []
        column = pq.read_table(path, columns=["request_key"]) if "request_key" in names else None
    except (OSError, pa.ArrowException):
        return set()
    return {k for k in column["request_key"].to_pylist() if k} if column is not None else set()


def downstream(manifests: Iterable[Manifest], names: set[str]) -> list[str]:
    """Return ``names`` and every asset that was made from them, sorted."""
    reached, before = set(names), set()
    every = list(manifests)
    while reached != before:
        before = set(reached)
        reached |= {m.name for m in every if before & set(m.inputs)}
    return sorted(reached)


def _readable(manifests: ManifestStore, dataset: str) -> Iterator[Manifest]:
    for name in manifests.names(dataset):
        try:
            found = manifests.current(dataset, name)
        except FormatError:
            raise
        except StoreError:
            continue
        if found is not None:
            yield found


def _manifests(manifests: ManifestStore, report: Report, aside: Path | None) -> None:
    for path, problem in list(manifests.damaged()):
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
        current = {m.name: m for m in _readable(manifests, dataset)}
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
            except FormatError:
                raise
            except StoreError:
                continue
            if found is not None:
                yield found


def _cells(data: Path, report: Report, aside: Path | None) -> None:
    seconds = 0.0
    for folder in sorted((data / "cells").glob("*/*")):
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        try:
            files = read_fingerprint(folder)
            faults = differences(folder, files or {})
        except FormatError:
            raise
        except StoreError as error:
            files, faults = {}, [str(error)]
        report.count("cells", listed=files is not None)
        if not faults:
            continue
        seconds += _seconds(folder)
        moved = ""
        if aside is not None:
            moved = str(set_aside(folder, aside / "cells" / folder.parent.name,
                                  {"path": folder, "problems": faults}))  # fmt: skip
        report.faults += [
            Fault("cells", str(folder), f, "trained again by the next evaluation that asks for it",
                  (folder.parent.name,), moved) for f in faults]  # fmt: skip
    if seconds:
        report.regeneration["cells"] = {"training_seconds": round(seconds, 1)}


def _seconds(folder: Path) -> float:
    try:
        return float(json.loads((folder / "cell.json").read_text())["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def _vectors(data: Path, manifests: ManifestStore, report: Report, aside: Path | None) -> None:
    readers: dict[str, list[str]] = {}
    for dataset in manifests.datasets():
        for manifest in _readable(manifests, dataset):
            if manifest.info.get("encoder"):
                readers.setdefault(manifest.info["encoder"], []).append(
                    f"{dataset}: {manifest.name}")  # fmt: skip
    texts = 0
    into = aside / "vectors" if aside is not None else None
    for path in sorted((data / "vectors").glob("*/space.json")):
        try:
            space = VectorStore(data / "vectors").open(path)
        except FormatError:
            raise
        except StoreError as error:
            report.faults.append(Fault("vectors", str(path), str(error),
                                       "its texts are encoded again by the next run"))  # fmt: skip
            if into is not None:
                set_aside(path.parent, into, {"path": path, "problem": str(error)})
            continue
        identity, found = space
        for folder in sorted(found.folder.glob("seg-*")):
            report.count("vector segments", listed=(folder / "sums.npy").is_file())
        for fault in found.verify(mend=into is not None, into=into):
            texts += fault.rows
            report.faults.append(Fault("vectors", str(fault.path), fault.problem,
                                       "the lost texts are encoded again by the next run",
                                       tuple(readers.get(identity, ())),
                                       str(into or "")))  # fmt: skip
    if texts:
        report.regeneration["vectors"] = {"texts_to_encode": texts}


def leftovers(data: Path, *, older_than: float = 24 * 3600) -> list[Path]:
    """Return temporary files and folders of processes that died at least so many seconds ago."""
    limit = time.time() - older_than
    patterns = ("warehouse/*/*/*/.tmp-*", "cells/*/.tmp-*", "cells/*/.old-*", "vectors/*/.tmp-*",
                "vectors/*/.old-*", "manifests/*/*/*/.tmp-*", "fits/*/*/.tmp-*",
                "encoders/*/*/.tmp-*", "bundle-*", "responses/.writing-*.tmp",
                ".pruned-*")  # fmt: skip
    found = [p for pattern in patterns for p in data.glob(pattern)]
    return [p for p in found if os.lstat(p).st_mtime < limit]
