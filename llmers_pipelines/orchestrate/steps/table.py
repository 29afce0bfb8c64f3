"""Table: validated catalog tables and the splits of a task; bad rows stay, with their reason."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...data.description import NO_CUTOFF
from ...data.leakage import CONTAMINATED
from ...data.quarantine import fault_lines
from ...data.schema import column_meanings
from ...data.training import SPLIT_NAMES, TEST, TRAIN, VALID, TrainingData
from ...data.views import opaque_items, opaque_rows, seen_log, split_columns
from ...plan import Table
from ...store.manifests import CheckOutcome
from ..context import QUARANTINE, Outcome, StepContext, StepError, hash_table
from .derive import preview

# The usual limit is part of no source: homes that were made with it stay as they are.
USUAL_SHARE = 0.01
HIDDEN = "all but ids and declared values without words"
OWN = ("items", "users", "interactions")  # all others lie beside the log
# Splits that follow time; the others hold rows out by column, by draw or by item.
_IN_TIME = ("leave_one_out", "time", "cold_user")


def sources(node: Table, ctx: StepContext) -> dict[str, str]:
    """Return the content hash of the data set's files, or of the settings of a split."""
    if node.table == "splits":
        return {"split settings": ctx.description.split_digest(node.task)}
    limit = quarantine_share(ctx)
    more = {} if limit == USUAL_SHARE else {"quarantine limit": str(limit)}
    if node.view:  # how it hides is part of no digest: what was hidden otherwise is made again
        more["hidden"] = HIDDEN
    return {"files": ctx.source_version, **more}


def quarantine_share(ctx: StepContext) -> float:
    """Return the most that may be in quarantine: of the description, else of the settings."""
    own = ctx.description.quarantine_share
    return ctx.settings.quarantine_share if own is None else own


def run(node: Table, ctx: StepContext) -> Outcome:
    """Publish one table of the data set."""
    return _splits(node, ctx) if node.table == "splits" else _table(node, ctx)


def _load(ctx: StepContext) -> Any:
    # Keyed by the source version: three tables of one run read the files once.
    return _catalog_by_name(ctx.dataset, ctx.settings.home, ctx.settings.data_root,
                            ctx.source_version)  # fmt: skip


@lru_cache(maxsize=1)
def _catalog_by_name(name: str, home: Any, data_root: Any, version: str) -> Any:
    from ...data.catalog import load_catalog
    from ...data.registry import find_dataset

    return load_catalog(find_dataset(name, home), data_root)


def _table(node: Table, ctx: StepContext) -> Outcome:
    catalog = _load(ctx)
    beside = node.table not in OWN
    if beside and node.table not in catalog.extras:
        raise StepError(
            f"{node.name}: data set {ctx.dataset!r} declares no table {node.table!r}; add "
            f"[{node.table}] with its path to {ctx.description.file}"
        )
    table: pa.Table = catalog.extras[node.table] if beside else getattr(catalog, node.table)
    if node.view:
        table = _opaque(table, node.table, ctx)
    quarantine = catalog.quarantine.filter(pc.equal(catalog.quarantine["table"], node.table))
    dropped = int(pc.sum(pc.equal(quarantine["action"], "dropped")).as_py() or 0)
    read = catalog.info["records_read"].get(node.table, table.num_rows)
    id_column = {"items": "item_id", "users": "user_id"}.get(node.table)
    unique = id_column is None or pc.count_distinct(table[id_column]).as_py() == table.num_rows
    nulls = sum(table[c].null_count for c in ("item_id", "user_id") if c in table.column_names)
    reasons = {str(v["values"]): int(v["counts"])
               for v in pc.value_counts(quarantine["reason"]).to_pylist()}  # fmt: skip

    def save(folder) -> None:
        pq.write_table(table, folder / "rows.parquet", compression="zstd")

    def write_beside(folder) -> None:  # other bad rows make no other version of the good ones
        temporary = folder / f".quarantine-{os.getpid()}"
        pq.write_table(quarantine, temporary, compression="zstd")
        os.replace(temporary, folder / QUARANTINE)

    fields = {} if beside else {
        "items": ctx.description.items.fields,
        "users": ctx.description.users.fields if ctx.description.users else {},
    }.get(node.table, ctx.description.interactions.fields)
    meanings = {} if beside else column_meanings(node.table)
    source = ctx.description.sources.get(node.table, ctx.description.interactions)
    return Outcome(
        save,
        hash_table(table),
        rows=table.num_rows,
        counts={"quarantined": dropped, "records_read": read,
                **{f"quarantine.{k}": v for k, v in reasons.items()}},
        checks=(
            CheckOutcome("rows_valid", table.num_rows > 0 and bool(unique) and nulls == 0, True,
                         {"rows": table.num_rows, "unique ids": bool(unique), "null ids": nulls}),
            _quarantine_small(dropped, read, reasons, quarantine, quarantine_share(ctx)),
        ),
        columns=tuple(
            (f.name, str(f.type), fields[f.name].kind if f.name in fields else
             meanings.get(f.name, "")) for f in table.schema
        ),
        flags=_marks(source) if beside else (),
        info={"preview": preview(table), "files": source.path,
              "quarantine": preview(quarantine) if quarantine.num_rows else ""},
        beside=write_beside,
        keep=table,
    )  # fmt: skip


def _opaque(table: pa.Table, name: str, ctx: StepContext) -> pa.Table:
    source = ctx.description.sources.get(name)
    kinds = {f.name: f.kind for f in source.fields.values()} if source is not None else {}
    if name == "items":
        return opaque_items(table, kinds)
    read = split_columns(ctx.description.splits.values()) if name == "interactions" else ()
    return opaque_rows(table, kinds, read)


def _marks(source: Any) -> tuple[str, ...]:
    """Return the marks of a table beside the log whose author may have seen held-out rows."""
    seen = ("labels_seen",) if source.labels_seen else ()
    return seen if source.data_cutoff == NO_CUTOFF else (*seen, CONTAMINATED)


def _quarantine_small(
    dropped: int, read: int, reasons: dict[str, int], quarantine: pa.Table, limit: float
) -> CheckOutcome:
    """Return the check that holds what is downstream where too much of a source is unusable."""
    details: dict[str, Any] = {"quarantined": dropped, "read": read, "limit": limit, **reasons}
    passed = dropped <= limit * max(1, read)
    if not passed:
        details["why"] = (
            f"{dropped} of {read} rows are in quarantine, {dropped / max(1, read):.1%} where "
            f"{limit:.1%} are allowed; mend the file, or set quarantine_share in the data set's "
            f"description. First: {'; '.join(fault_lines(quarantine, 2))}"
        )
    return CheckOutcome("quarantine_small", passed, True, details)


def _splits(node: Table, ctx: StepContext) -> Outcome:
    from ...data.catalog import Catalog
    from ...data.splits import build_training_data

    by_table = {n.table: n for n in node.of}
    by_name = {name: ctx.load(n) for name, n in by_table.items()}
    catalog = Catalog(
        name=ctx.dataset, items=by_name["items"], interactions=by_name["interactions"],
        users=by_name["users"], extras={}, quarantine=pa.table({}), source_version="",
    )  # fmt: skip
    data = build_training_data(catalog, ctx.description, node.task)
    if node.view:
        data = seen_log(data, node.view)
    counts = {name: int((data.split == i).sum()) for i, name in enumerate(SPLIT_NAMES)}
    return Outcome(
        data.save,
        data.content_hash(),
        rows=len(data.user),
        counts={"users": data.n_users, "items": data.n_items, **counts,
                "protocol": str(data.info.get("protocol", ""))},
        checks=_split_checks(data, ctx.description.split(node.task)),
        columns=_log_columns(data),
        lineage={
            column: ((by_table["interactions"].name, source),)
            for column, source in (("user", "user_id"), ("item", "item_id"),
                                   ("time", ctx.time_column), ("rating", "rating"))
            if source in by_name["interactions"].column_names
        },
        info={"info": data.info},
        keep=data,
    )  # fmt: skip


def _log_columns(data: TrainingData) -> tuple[tuple[str, str, str], ...]:
    """Return name, type and meaning of the columns that a log has: not each has all."""
    known = (("user", "int64", "position"), ("item", "int64", "position"),
             ("time", "int64", "seconds or order"), ("split", "int8", "train valid test history"),
             ("label", "float32", "click tasks alone"), ("rating", "float32", ""),
             ("scenario", "int32", "code, 0 = unknown"),
             ("impression", "int64", "equal where shown together, 0 = unknown"))  # fmt: skip
    return tuple(c for c in known if getattr(data, c[0]) is not None)


def _split_checks(data: TrainingData, spec: Any) -> tuple[CheckOutcome, ...]:
    sizes = [int((data.split == s).sum()) for s in (TRAIN, VALID, TEST)]
    known = bool(
        len(data.item) and data.item.min() > 0 and data.user.min() > 0
        and data.item.max() <= data.n_items and data.user.max() <= data.n_users
    )  # fmt: skip
    late = _late_rows(data)
    return (
        CheckOutcome("splits_disjoint", min(sizes) > 0 and known, True,
                     {"train": sizes[0], "valid": sizes[1], "test": sizes[2]}),
        CheckOutcome("no_future", spec.protocol not in _IN_TIME or late == 0, True,
                     {"training rows later than a held-out row of their user": late,
                      "protocol": spec.protocol}),
    )  # fmt: skip


def _late_rows(data: TrainingData) -> int:
    """Count training rows that lie after a held-out row of the same user, in stored order."""
    held = np.where(np.isin(data.split, (VALID, TEST)), data.time, np.iinfo(np.int64).max)
    first = np.full(data.n_users + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, data.user, held)
    return int(((data.split == TRAIN) & (data.time > first[data.user])).sum())
