"""Which stored assets hang on an answer or on another asset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .formats import StoreError
from .manifests import Manifest, ManifestStore
from .responses import ResponseStore


def is_key(text: str | None) -> bool:
    """Say whether a text is the key of an answer."""
    return bool(text) and len(text) == 64 and set(text) <= set("0123456789abcdef")


def hanging(
    manifests: ManifestStore, gone: set[str], store: ResponseStore | None
) -> dict[str, None]:
    """Return "data set: asset" of what reads lost answers, and of everything downstream.

    With ``store`` any answer that an asset names and the store lacks counts as lost.
    """
    found: dict[str, None] = {}
    for dataset in manifests.datasets():
        current = list(readable(manifests, dataset))
        touched = set()
        for manifest in current:
            keys = answer_keys(manifests.path(manifest))
            if keys & gone or (store is not None and keys - store.known(filter(is_key, keys))):
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


def readable(manifests: ManifestStore, dataset: str) -> Iterator[Manifest]:
    """Yield the current manifest of each asset, without those that cannot be read."""
    for name in manifests.names(dataset):
        try:
            found = manifests.current(dataset, name)
        except StoreError:
            continue
        if found is not None:
            yield found
