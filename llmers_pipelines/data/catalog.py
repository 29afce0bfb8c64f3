"""One data set as valid Arrow tables, with its quarantine and the version of its sources."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .description import DATA_ROOT, Description, Source
from .dvc import md5_of, pointer, recorded_md5
from .quarantine import count_reasons
from .schema import ITEM_ID, ROW, USER_ID, DataError
from .sources import Known, RawTable, content_hash, read_source, source_files
from .validate import check_entities, check_extra, check_interactions


@dataclass(frozen=True)
class Catalog:
    """Valid tables of a data set.

    ``items`` (item_id, title, ...), ``users`` (user_id, ...; every user of the log) and
    ``interactions`` (user_id, item_id, timestamp or position, rating, ..., row) have ids as text.
    ``info`` holds the clock, rows read, counts of quarantined rows by reason, hints, and warnings
    about ids that one table has and another lacks.
    """

    name: str
    items: pa.Table
    interactions: pa.Table
    users: pa.Table
    extras: dict[str, pa.Table]
    quarantine: pa.Table
    source_version: str
    info: dict[str, Any] = field(default_factory=dict)


def load_catalog(
    description: Description,
    data_root: Path | str | None = None,
    *,
    extras: bool = True,
    known: Known | None = None,
) -> Catalog:
    """Read, check and normalize all tables of ``description``.

    Raises ``DataError`` when files or columns are missing or nothing valid is left; single bad
    rows go to ``quarantine``.
    """
    folder = require_files(description, data_root)
    raw = _read(description.items, folder, [ITEM_ID])
    items = check_entities(raw, description.items, ITEM_ID)
    read = {"items": _records(raw)}
    raw = _read(description.interactions, folder, [USER_ID, ITEM_ID])
    log = check_interactions(raw, description.interactions, items.table[ITEM_ID])
    read["interactions"] = _records(raw)
    tables = [items.quarantine, log.quarantine]
    users = None
    if description.users is not None:
        raw = _read(description.users, folder, [USER_ID])
        checked = check_entities(raw, description.users, USER_ID)
        read["users"] = _records(raw)
        users = checked.table
        tables.append(checked.quarantine)
    all_users, derived = _with_users_of(log.table, users)
    warnings = []
    if description.users is not None and derived:
        warnings.append(_unknown_users(log.table, users, derived, description))
    all_items = _with_items(items.table, log.info["unknown_items"])
    beside: dict[str, pa.Table] = {}
    known = {USER_ID: all_users[USER_ID], ITEM_ID: all_items[ITEM_ID]}
    entities: dict[str, pa.ChunkedArray] = {}
    for name, source in (description.extras if extras else {}).items():
        raw = _read(source, folder, _id_columns(source))
        checked = check_extra(raw, source, known | (entities if name == "kg_link" else {}))
        read[name] = _records(raw)
        beside[name] = checked.table
        tables.append(checked.quarantine)
        warnings += checked.info["warnings"]
        if name == "kg" and {"head_id", "tail_id"} <= set(checked.table.column_names):
            chunks = [*checked.table["head_id"].chunks, *checked.table["tail_id"].chunks]
            entities["entity_id"] = pa.chunked_array(chunks, pa.string())
    quarantine = pa.concat_tables(tables)
    info = {
        "clock": log.info["clock"],
        "records_read": read,
        "quarantined": count_reasons(quarantine),
        "users_without_attributes": derived,
        "hint": log.info["hint"],
        "warnings": warnings,
    }
    return Catalog(
        name=description.name,
        items=all_items,
        interactions=log.table,
        users=all_users,
        extras=beside,
        quarantine=quarantine,
        source_version=source_version(description, data_root, known=known),
        info=info,
    )


def source_version(
    description: Description, data_root: Path | str | None = None, *, known: Known | None = None
) -> str:
    """Hash of the contents of all source files and of how the description reads them."""
    folder = require_files(description, data_root)
    paths = [p for s in description.sources.values() for p in source_files(s, folder)]
    both = content_hash(paths, known) + description.table_digest()
    return hashlib.sha256(both.encode()).hexdigest()[:16]


def tracked_files(
    description: Description, data_root: Path | str | None = None
) -> dict[str, str]:
    """Return file -> md5 that DVC records, or "changed", for the source files that it tracks."""
    folder = require_files(description, data_root)
    found = {}
    for path in (p for s in description.sources.values() for p in source_files(s, folder)):
        if md5 := recorded_md5(path):
            found[path.name] = md5 if md5_of(path) == md5 else "changed"
    return found


def require_files(description: Description, data_root: Path | str | None = None) -> Path:
    """Return the folder of the data set, or raise ``DataError`` saying what is missing and where.

    Recorded answers are not required here; they are read when a recipe asks for them.
    """
    folder = description.folder(data_root)
    shared = description.root.startswith(DATA_ROOT)
    obtain = f" ({description.obtain})" if description.obtain else ""
    if not folder.is_dir():
        mend = (
            f"set the environment variable LLMERS_DATA_ROOT to the folder that holds "
            f"{description.root.removeprefix(DATA_ROOT).strip('/')!r}"
            if shared
            else f"correct `root` in {description.file}"
        )
        raise DataError(f"data set {description.name!r}: no folder {folder}; {mend}{obtain}")
    declared = [s.path for s in description.sources.values() if "*" not in s.path]
    wanted = dict.fromkeys([*declared, *description.requires])
    missing = [path for path in wanted if not (folder / path).exists()]
    if missing:
        where = " below LLMERS_DATA_ROOT" if shared else ""
        tracked = [path for path in missing if pointer(folder / path).is_file()]
        if tracked:
            raise DataError(
                f"data set {description.name!r}: {folder}{where} lacks {', '.join(tracked)}, which "
                "DVC tracks; get them with `dvc pull` or `dvc checkout` in that folder"
            )
        raise DataError(
            f"data set {description.name!r}: {folder}{where} lacks {', '.join(missing)}; put the "
            f"files there or correct the paths in {description.file}{obtain}"
        )
    return folder


def _read(source: Source, folder: Path, columns: list[str]) -> RawTable:
    return read_source(source, folder, [source.columns.get(c, c) for c in columns])


def _records(raw: RawTable) -> int:
    return raw.table.num_rows + len(raw.rejects)


def _id_columns(source: Source) -> list[str]:
    return [c for c in source.columns if c.endswith("_id")]


def _with_items(items: pa.Table, unknown: list[str]) -> pa.Table:
    """Append items that only the log knows; their other columns are empty."""
    if not unknown:
        return items
    more = pa.table({ITEM_ID: pa.array(unknown, pa.string())})
    return pa.concat_tables([items, more], promote_options="default")


def _with_users_of(log: pa.Table, users: pa.Table | None) -> tuple[pa.Table, int]:
    """Return every user of the table and of the log, and how many only the log knows."""
    seen = pc.unique(log[USER_ID])
    if users is None:
        return pa.table({USER_ID: seen}), len(seen)
    new = pc.index_in(seen, value_set=users[USER_ID].combine_chunks())
    more = pa.table({USER_ID: seen.filter(pc.is_null(new))})
    return pa.concat_tables([users, more], promote_options="default"), more.num_rows


def _unknown_users(
    log: pa.Table, users: pa.Table | None, count: int, description: Description
) -> str:
    """Say which users of the log the table of users lacks: they have no attributes."""
    assert users is not None and description.users is not None  # it is declared
    source = description.interactions
    lacking = pc.is_null(pc.index_in(log[USER_ID], value_set=users[USER_ID].combine_chunks()))
    first = log.select([USER_ID, ROW]).filter(lacking).slice(0, 1).to_pylist()[0]
    return (
        f"{description.users.path} lacks {count} of the {pc.count_distinct(log[USER_ID]).as_py()} "
        f"users of the interactions, which get no attributes; first: {source.path}, row "
        f"{first[ROW]}, column {source.columns.get(USER_ID, USER_ID)!r}: {first[USER_ID]!r}; add "
        "them, or write the ids alike"
    )
