"""Which versions are meant, and everything in which they differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from ...data.training import SPLIT_NAMES, TrainingData
from ...data.vectors import VectorTable
from ...store.manifests import Manifest, ManifestStore
from ..context import StepError
from ..trace.stored import Stored, verb_of
from .form import Facts, MetricChange, RowDiff, VectorDrift, VersionDiff, WeightChange
from .models import metric_changes, weight_changes
from .tables import row_diff
from .vectors import vector_drift


def resolve(store: ManifestStore, dataset: str, asset: str, word: str) -> Manifest:
    """Return the stored version that ``word`` names: a prefix, ``current`` or ``previous``.

    ``previous`` is the newest stored one beside the current. Raises ``StepError``, which names what
    is stored, for a word that fits none or several.
    """
    known = store.versions(dataset, asset) if asset in store.names(dataset) else []
    if not known:
        names = ", ".join(store.names(dataset)) or "none"
        raise StepError(f"{asset}: no version is stored for data set {dataset!r}; stored: {names}")
    newest = store.current(dataset, asset)
    now = newest.data_version if newest is not None else known[-1].data_version
    if word == "current":
        found = [m for m in known if m.data_version == now]
    elif word == "previous":
        found = [m for m in known if m.data_version != now][-1:]
    else:
        exact = [m for m in known if m.data_version == word]
        found = exact or [m for m in known if word and m.data_version.startswith(word)]
    if len(found) == 1:
        return found[0]
    told = ", ".join(
        f"{m.data_version} ({m.created}{', current' if m.data_version == now else ''})"
        for m in known
    )
    why = f"{len(found)} versions begin with {word!r}" if found else (
        "no other version than the current one" if word == "previous"
        else f"no version {word!r}")  # fmt: skip
    raise StepError(f"{asset} of data set {dataset!r}: {why}; stored: {told}")


def diff_versions(stored: Stored, asset: str, before: str, after: str) -> VersionDiff:
    """Return what changed in ``asset`` from one stored version to another; see ``resolve``."""
    store = stored.manifests
    old, new = (resolve(store, stored.dataset, asset, word) for word in (before, after))
    for manifest in (old, new):
        if not store.path(manifest).is_dir():
            raise StepError(
                f"{asset} @ {manifest.data_version}: its files were removed (pruned); compare "
                "versions whose files are there"
            )
    key = ("diff", stored.dataset, asset, old.data_version, new.data_version,
           old.created, new.created)  # fmt: skip
    return stored.cache.get(key, lambda: _diff(stored, asset, old, new))


def _diff(stored: Stored, asset: str, old: Manifest, new: Manifest) -> VersionDiff:
    folders = (stored.folder(old), stored.folder(new))
    rows: RowDiff | None = None
    vectors: VectorDrift | None = None
    metrics: tuple[MetricChange, ...] = ()
    weights: tuple[WeightChange, ...] = ()
    facts = _facts(old, new)
    titles = stored.titles()
    if old.data_version == new.data_version:
        pass
    elif (folders[0] / "weights.safetensors").is_file():
        weights = weight_changes(*folders)
    elif verb_of(new) == "evaluate":
        metrics = metric_changes(*folders)
    elif (folders[0] / "rows.parquet").is_file():
        rows = row_diff(stored.load(old), stored.load(new), _all_titles(stored, titles, old, new))
    else:
        one, two = stored.load(old), stored.load(new)
        if isinstance(one, VectorTable) and isinstance(two, VectorTable):
            vectors = vector_drift(one, two, folders, titles if two.entity == "item" else {})
        elif isinstance(one, TrainingData) and isinstance(two, TrainingData):
            rows = row_diff(log_rows(one), log_rows(two), titles)
    return VersionDiff(
        stored.dataset, asset, old.data_version, new.data_version, (old.created, new.created),
        old.data_version == new.data_version, facts, rows, vectors, metrics, weights,
    )  # fmt: skip


def _all_titles(
    stored: Stored, titles: Mapping[str, str], old: Manifest, new: Manifest
) -> Mapping[str, str]:
    if new.name != "catalog/items":
        return titles
    return {**stored.titles(old), **stored.titles(new)}


def log_rows(data: TrainingData) -> pa.Table:
    """Return a log as rows of ids, so that versions with other positions can be compared."""
    users, items = pa.array(data.users.ids, pa.string()), pa.array(data.items.ids, pa.string())
    columns: dict[str, Any] = {
        "user_id": users.take(pa.array(data.user - 1)),
        "item_id": items.take(pa.array(data.item - 1)),
        "time": pa.array(data.time),
        "split": pa.array(SPLIT_NAMES, pa.string()).take(pa.array(data.split)),
    }
    for name, values in (("rating", data.rating), ("label", data.label)):
        if values is not None:
            columns[name] = pa.array(values, from_pandas=True)
    return pa.table(columns)


def _facts(old: Manifest, new: Manifest) -> tuple[Facts, ...]:
    """Return in what the making of both versions differs: what to look at first."""
    numbers = (str, int, float, bool)
    groups = {
        "made from": ({"code and settings": old.code_version, **old.inputs, **old.sources},
                      {"code and settings": new.code_version, **new.inputs, **new.sources}),
        "counts": tuple({"rows": m.rows, **{k: v for k, v in m.counts.items()
                                            if isinstance(v, numbers)}} for m in (old, new)),
        "marks": tuple({"flags": ", ".join(m.flags) or "none",
                        "failed checks": ", ".join(c.name for c in m.checks if not c.passed)
                        or "none"} for m in (old, new)),
        "columns": tuple({n: t for n, t, _ in m.columns} for m in (old, new)),
    }  # fmt: skip
    out = []
    for title, (one, two) in groups.items():
        changed = {k: (one.get(k), two.get(k)) for k in dict.fromkeys((*one, *two))
                   if one.get(k) != two.get(k)}  # fmt: skip
        if changed:
            out.append(Facts(title, changed))
    return tuple(out)
