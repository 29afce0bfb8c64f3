"""``llmers datasets fetch``: from a name to a data set that recipes can run on."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..add import to_toml
from ..description import load_description
from ..schema import DataError
from ..strict_toml import near
from .archives import local_file
from .describe import PublicSet, find_public, public_sets
from .download import Download
from .prepare import MANIFEST, REVISION, prepare, read_manifest, write_manifest
from .progress import Progress
from .raw import obtain

_MARK = "# Written by `llmers datasets fetch {name}`. You may change it; it is not written again.\n"


def need_public(name: str) -> PublicSet:
    """Return the public set ``name`` or raise ``DataError`` with the near names."""
    found = find_public(name)
    if found is None:
        names = [n for s in public_sets().values() for n in (s.name, *s.aliases)]
        raise DataError(
            f"no public data set {name!r}{near(name, names) or ';'} there are: "
            f"{', '.join(public_sets())}"
        )
    return found


def fetch_public(
    name: str,
    *,
    home: Path | str,
    data_root: Path | str | None,
    agree: Callable[[PublicSet], bool],
    category: str = "",
    reviews: bool = False,
    again: bool = False,
    progress: Progress | None = None,
    download: Download | None = None,
) -> dict[str, Any]:
    """Fetch and prepare the public set ``name`` and describe it in ``home``; return a report.

    A prepared copy under the data root is used first, then raw files in ``<folder>/raw``, then the
    network. ``agree`` is asked with the set before the first download. Keys: name, status
    (prepared already, prepared), folder, description, tables, counts, warnings, quarantined,
    quarantine, next. Raises ``DataError`` with what to do.
    """
    source = need_public(name).choose(category)
    progress = progress or Progress()
    folder = folder_of(source, home, data_root)
    manifest = read_manifest(folder)
    status = "prepared already"
    if manifest is None or again or not _fits(manifest, source, reviews=reviews):
        _writable(folder)
        with _alone(folder):
            got = obtain(
                source, folder / "raw", download or Download(progress), lambda: agree(source)
            )
            manifest = prepare(source, folder, progress, reviews=reviews)
            manifest["files"] = got.files
            manifest["warnings"] = got.warnings + manifest["warnings"]
            write_manifest(folder, manifest)
        status = "prepared"
    target, note = describe(source, folder, home, data_root, reviews=manifest["reviews"])
    return {
        "name": source.dataset_name, "status": status, "folder": str(folder),
        "description": str(target), "tables": manifest["tables"], "counts": manifest["counts"],
        "warnings": manifest["warnings"] + note, "quarantined": manifest["quarantined"],
        "faults": manifest.get("faults", []), "quarantine": str(folder / "quarantine.parquet"),
        "next": f"llmers datasets check {source.dataset_name}",
    }  # fmt: skip


def _fits(manifest: dict[str, Any], source: PublicSet, *, reviews: bool) -> bool:
    """Say whether the tables of ``manifest`` are what these parsers would write."""
    same = manifest.get("source") == source.name and manifest.get("revision") == REVISION
    return same and (bool(manifest.get("reviews")) or not reviews)


def folder_of(source: PublicSet, home: Path | str, data_root: Path | str | None) -> Path:
    """Return where a set lies: below the data root, without one below ``home/data/public``."""
    root = Path(data_root) if data_root else Path(home) / "data" / "public"
    return root / source.dataset_name


def describe(
    source: PublicSet, folder: Path, home: Path | str, data_root: Path | str | None,
    *, reviews: bool = False,
) -> tuple[Path, list[str]]:  # fmt: skip
    """Write ``home/data/datasets/<name>.toml``, unless there is one; return it and a note.

    Raises ``DataError`` where a data set of this name lies elsewhere.
    """
    name = source.dataset_name
    target = Path(home) / "data" / "datasets" / f"{name}.toml"
    root = f"$data/{name}" if data_root else os.path.relpath(folder, target.parent)
    if target.exists():
        there = load_description(target).root
        if there != root:
            raise DataError(
                f"{target} describes a data set {name!r} in {there!r}, not in {root!r}; remove or "
                "rename it"
            )
        return target, []
    raw = {
        "name": name, "about": _about(source), "domain": source.domain,
        "terms": f"{source.terms} ({source.terms_url}). Cite: {source.citation}",
        "obtain": f"llmers datasets fetch {source.name}"
        + (f" --category {source.category}" if source.category else ""),
        "root": root,
    } | dict(source.dataset)  # fmt: skip
    if reviews:
        raw["reviews"] = {"path": "reviews.parquet", "data_cutoff": "all"}
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    partial.write_text(_MARK.format(name=source.name) + to_toml(raw), encoding="utf-8")
    load_description(partial)
    partial.replace(target)
    return target, []


def _about(source: PublicSet) -> str:
    return f"{source.title}{': ' + source.category if source.category else ''}. {source.about}"


def state_of(source: PublicSet, home: Path | str, data_root: Path | str | None) -> str:
    """Say how much of a set is here: prepared, raw files, "" for nothing; families by member."""
    if source.categories:
        members = [source.choose(c) for c in source.categories]
        ready = [m.category for m in members if state_of(m, home, data_root) == "prepared"]
        return f"prepared: {', '.join(ready)}" if ready else ""
    folder = folder_of(source, home, data_root)
    if (folder / MANIFEST).is_file():
        return "prepared"
    here = [f for f in source.files if local_file(folder / "raw", f.name)]
    return "raw files" if len(here) == len(source.files) else ""


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise DataError(
            f"{folder} cannot be made ({fault.strerror}); choose a folder that you may write to "
            "with --data-root or LLMERS_DATA_ROOT"
        ) from None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second fetch of the same set out until this one is done."""
    lock = folder / ".lock"
    try:
        stream = lock.open("w")
    except OSError as fault:
        raise DataError(
            f"{folder} cannot be written ({fault.strerror}); choose a folder that you may write to "
            "with --data-root or LLMERS_DATA_ROOT"
        ) from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(f"{folder} is being fetched by another process; wait for it") from None
        yield
