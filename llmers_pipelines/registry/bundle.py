"""The served bundle: one folder that answers requests, without pickles and without an LLM.

``manifest.json`` lists every file with its size and sha256; its hash is the bundle's name. The
histories hold ALL known rows of a user (train, validation, test and history rows): a split is a
device of evaluation, while a request is answered with everything that is known.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from .catalog import served_catalog
from .ids import Ids, sorting
from .manifest import (
    CATALOG,
    CONFIG,
    FORMAT,
    HISTORIES,
    INDEX,
    USERS,
    WEIGHTS,
    BundleError,
    check_files,
    publish,
    read_manifest,
    to_json,
    write_manifest,
)
from .ranker import Ranker, load_ranker

if TYPE_CHECKING:
    import pyarrow as pa

    from ..data.training import TrainingData
    from .index import IndexSettings, ItemIndex

HISTORY_POLICY = "every known row of the user, in time order, whatever its split"


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle. Positions are 1..N; row 0 of every table is padding."""

    config: dict[str, Any]
    content_hash: str
    arrays: dict[str, np.ndarray]  # exported weights
    catalog: pa.Table  # item_id, title, one list<string> column per attribute
    items: Ids
    users: Ids
    offsets: np.ndarray  # int64[U + 2]: rows of user u are offsets[u]:offsets[u + 1]
    seen: np.ndarray  # int32[interactions], item positions, oldest first
    signal: np.ndarray | None  # float32[interactions]: the rating, else the label
    popularity: np.ndarray  # int64[N + 1]
    index_file: Path | None

    @property
    def n_items(self) -> int:
        return len(self.items)

    def rows(self, user: int) -> slice:
        return slice(int(self.offsets[user]), int(self.offsets[user + 1]))

    def title(self, position: int) -> str | None:
        return self.catalog["title"][position - 1].as_py()

    def attributes(self, position: int) -> dict[str, list[str]]:
        names = self.config["attributes"]
        return {n: self.catalog[n][position - 1].as_py() or [] for n in names}

    @cached_property
    def by_popularity(self) -> np.ndarray:
        """Item positions int64[N], most interactions first, ties by position."""
        return np.argsort(-self.popularity[1:], kind="stable") + 1


def write_bundle(
    folder: Path,
    *,
    config: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    data: TrainingData,
    items: pa.Table,
    meta: Mapping[str, Any],
    attributes: Sequence[str] | None = None,
    index: IndexSettings | None = None,
) -> Path:
    """Write a bundle to ``folder`` (complete or not at all) and return it.

    ``config`` and ``arrays`` come from ``Trained.export()`` and are rebuilt here once, so that a
    bundle that cannot be served is never written. ``items`` has ``item_id``, ``title`` and more.
    ``meta`` needs ``dataset`` and ``model`` (a readable name) and may hold ``data_versions`` and
    more JSON. ``attributes`` are the catalog columns that explanations may cite; by default short
    texts whose values repeat. ``index`` builds an index whose recall is measured on real users
    (only for models that score by dot product: others raise, or are scanned if it is not
    ``needed``). An equal bundle in ``folder`` is left as it is; a
    different one raises ``BundleError``.
    """
    import pyarrow.parquet as pq
    from safetensors.numpy import save_file

    folder = Path(folder)
    for name in ("dataset", "model"):
        if not meta.get(name):
            raise BundleError(f"meta lacks {name!r}; found {sorted(meta)}")
    catalog, names, untitled = served_catalog(data, items, attributes)
    weights = _contiguous(arrays)
    ranker = load_ranker(config, weights, data.task, data.n_items)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = folder.parent / f".{folder.name}.{uuid4().hex}"
    work.mkdir()
    try:
        unknown = data.items.index(meta.get("unknown_items", ()))
        built = _index(ranker, data, index, unknown) if index is not None else None
        if built is not None:
            built.save(work / INDEX)
        document = {
            **meta,
            "format": FORMAT,
            "task": data.task,
            "data_versions": dict(meta.get("data_versions") or {}),
            "model_config": dict(config),
            "sizes": {"users": data.n_users, "items": data.n_items, "interactions": len(data.item)},
            "history": HISTORY_POLICY,
            "liked_signal": _liked_signal(data),
            "fallback": {"policy": "popularity", "counts": _counted(data)},
            "attributes": names,
            "untitled_items": untitled,
            "index": built.describe() if built else None,
        }
        (work / CONFIG).write_text(to_json(document), encoding="utf-8")
        save_file(weights, work / WEIGHTS)
        save_file(_histories(data), work / HISTORIES)
        pq.write_table(catalog, work / CATALOG, compression="zstd")
        pq.write_table(_users(data), work / USERS, compression="zstd")
        return publish(work, folder, write_manifest(work))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def load_bundle(folder: Path, *, verify: bool = True) -> Bundle:
    """Read a bundle; ``verify=False`` skips the checksums (not the sizes)."""
    import pyarrow.parquet as pq
    from safetensors.numpy import load_file

    folder = Path(folder)
    manifest = read_manifest(folder)
    check_files(folder, manifest, verify)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    catalog = pq.read_table(folder / CATALOG).combine_chunks()
    users = pq.read_table(folder / USERS).combine_chunks()
    held = load_file(folder / HISTORIES)
    arrays = load_file(folder / WEIGHTS)
    n, u, rows = (config["sizes"][k] for k in ("items", "users", "interactions"))
    for what, found, expected in (
        ("catalog.parquet rows", catalog.num_rows, n),
        ("users.parquet rows", users.num_rows, u),
        ("item order", len(held["item_order"]), n),
        ("user order", len(held["user_order"]), u),
        ("history offsets", len(held["offsets"]), u + 2),
        ("history rows", len(held["items"]), rows),
        ("last history offset", int(held["offsets"][-1]), rows),
        ("popularity", len(held["popularity"]), n + 1),
    ):
        if found != expected:
            raise BundleError(f"{folder}: {what} = {found}, config.json says {expected}")
    if rows and (held["items"].min() < 1 or held["items"].max() > n):
        raise BundleError(f"{folder}: a history names item positions outside 1..{n}")
    return Bundle(
        config=config, content_hash=manifest["content_hash"], arrays=arrays, catalog=catalog,
        items=Ids(catalog["item_id"].chunk(0), held["item_order"]) if n else Ids([], np.array([])),
        users=Ids(users["user_id"].chunk(0), held["user_order"]) if u else Ids([], np.array([])),
        offsets=held["offsets"], seen=held["items"], signal=held.get("signal"),
        popularity=held["popularity"],
        index_file=folder / INDEX if (folder / INDEX).is_file() else None,
    )  # fmt: skip


def _contiguous(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    for name, a in arrays.items():
        if not isinstance(a, np.ndarray) or a.dtype.kind not in "fiub":
            raise BundleError(f"array {name!r} is {getattr(a, 'dtype', type(a))}; numbers only")
        if a.dtype.kind == "f" and np.isnan(a).any():
            raise BundleError(f"array {name!r} holds NaN: the training diverged")
    return {name: np.ascontiguousarray(a) for name, a in arrays.items()}


def _index(
    ranker: Ranker, data: TrainingData, settings: IndexSettings, unknown: np.ndarray
) -> ItemIndex | None:
    """Build an index, its recall measured on users who are not shown what they have seen, nor the
    items whose positions are ``unknown`` to the weights."""
    from .index import build_index

    rng = np.random.default_rng(settings.seed)
    users = 1 + rng.permutation(data.n_users)[: settings.queries]
    histories = [data.item[data.user_start[u] : data.user_start[u + 1]] for u in users]
    try:
        unit = ranker.searched_by(users[:8], histories[:8])
    except BundleError:
        if settings.needed:
            raise
        return None
    return build_index(
        ranker.search_vectors(unit), settings, queries=ranker.states(users, histories),
        seen=[np.union1d(h, unknown) for h in histories], unit=unit,
    )  # fmt: skip


def _counted(data: TrainingData) -> str:
    return "rows with label 1, all splits" if data.label is not None else "all rows, all splits"


def _liked_signal(data: TrainingData) -> float | None:
    """The rating (or label) that stands for a history given without any: the usual liked one."""
    signal = data.rating if data.rating is not None else data.label
    if signal is None:
        return None
    liked = signal if data.label is None else signal[data.label > 0]
    return float(np.nanmedian(liked)) if len(liked) and not np.isnan(liked).all() else 1.0


def _histories(data: TrainingData) -> dict[str, np.ndarray]:
    liked = data.item if data.label is None else data.item[data.label > 0]
    out = {
        "offsets": np.ascontiguousarray(data.user_start, dtype=np.int64),
        "items": data.item.astype(np.int32),
        "popularity": np.bincount(liked, minlength=data.n_items + 1).astype(np.int64),
        "item_order": sorting(data.items.ids),
        "user_order": sorting(data.users.ids),
    }
    signal = data.rating if data.rating is not None else data.label
    if signal is not None:
        out["signal"] = np.nan_to_num(signal.astype(np.float32))
    return out


def _users(data: TrainingData) -> pa.Table:
    import pyarrow as pa

    return pa.table({"user_id": pa.array(data.users.ids, pa.string())})
