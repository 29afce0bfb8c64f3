"""From raw files to the tables of a data set: parse, drop repetitions, count, compare, publish."""

from __future__ import annotations

import importlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

from ..schema import ITEM_ID, USER_ID, DataError
from .counting import distinct, drop_repeated
from .describe import PublicSet
from .progress import Progress
from .tables import Build

REVISION = 1  # of the parsers; raised when they write something else
MANIFEST = "fetched.json"


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a prepared data set whose tables are all there, else ``None``."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        tables = manifest["tables"]
        whole = all((folder / f"{name}.parquet").is_file() for name in tables)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return manifest if whole else None


def prepare(
    source: PublicSet, folder: Path, progress: Progress, *, reviews: bool = False
) -> dict[str, Any]:
    """Parse ``folder/raw`` into Parquet tables in ``folder``; return what was made.

    Memory is bounded by batches of rows (see ``tables``), not by the size of the files; items of
    MovieLens, MIND and Last.fm, which are few, are held while they are written. Tables are made
    beside the old ones and replace them at the end, the manifest last. Keys: tables (name ->
    rows), counts, warnings, quarantined, faults (the first ones).
    """
    building = folder / ".building"
    shutil.rmtree(building, ignore_errors=True)
    build = Build(building, reviews=reviews)
    try:
        progress.say(f"reading {source.dataset_name}")
        parser = importlib.import_module(f".{source.parser}", __package__)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # literals with odd escapes warn once a line
            parser.parse(source, folder / "raw", build)
        tables = build.close()
        if not tables.get("interactions") or not tables.get("items"):
            raise DataError(
                f"{source.dataset_name}: no valid row was found in {folder / 'raw'}; first fault: "
                f"{build.faults.first[:1]}"
            )
        progress.say(f"counting {source.dataset_name}")
        counts, notes = compare(source, build, tables)
        if source.unique:
            for name in (n for n in ("interactions", "reviews") if n in tables):  # row by row alike
                noted = build.faults if name == "interactions" else None
                tables[name] -= drop_repeated(
                    build.path(name), name, source.files[0].name, source.unique,
                    building / "spill", noted,
                )  # fmt: skip
        build.faults.close()
        manifest = {
            "name": source.dataset_name, "source": source.name, "category": source.category,
            "revision": REVISION, "reviews": reviews, "tables": tables, "counts": counts,
            "warnings": notes, "quarantined": dict(sorted(build.faults.counts.items())),
            "faults": build.faults.first,
        }  # fmt: skip
        _publish(building, folder, tables)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    finally:
        progress.end()
    return manifest


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, last of all: it says that the tables are whole."""
    partial = folder / (MANIFEST + ".part")
    partial.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(folder / MANIFEST)


def compare(
    source: PublicSet, build: Build, tables: dict[str, int]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return name -> published and found, and a sentence for each count that does not match.

    ``users`` and ``items`` are those of the valid interactions, ``*_rows`` the rows of tables.
    """
    spill = build.folder / "spill"
    log = build.path("interactions")
    measures = {
        "interactions": lambda: tables["interactions"],
        "users": lambda: distinct(log, USER_ID, spill),
        "items": lambda: distinct(log, ITEM_ID, spill),
        "item_rows": lambda: tables["items"],
        "user_rows": lambda: tables.get("users", 0),
    }
    counts: dict[str, dict[str, Any]] = {}
    notes = list(build.notes)
    for name in dict.fromkeys(["interactions", "users", "items", *source.counts]):
        found = measures[name]() if name in measures else tables.get(name, 0)
        count = source.counts.get(name)
        counts[name] = {"found": found, "published": count.text if count else None}
        if count and not count.matches(found):
            notes.append(
                f"{name.replace('_', ' ')}: {found:,} found, {count.text} published; see the "
                "quarantine for rows that were refused, or the file is another edition"
            )
    return counts, notes


def _publish(building: Path, folder: Path, tables: dict[str, int]) -> None:
    (folder / MANIFEST).unlink(missing_ok=True)
    for name in (*tables, "quarantine"):
        (building / f"{name}.parquet").replace(folder / f"{name}.parquet")
    shutil.rmtree(building, ignore_errors=True)
