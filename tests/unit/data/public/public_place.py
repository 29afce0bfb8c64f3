"""A home and a data root for one test, and fetching into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from llmers_pipelines.data.catalog import Catalog, load_catalog
from llmers_pipelines.data.checkup import check_dataset
from llmers_pipelines.data.public.describe import PublicSet
from llmers_pipelines.data.public.fetch import fetch_public
from llmers_pipelines.data.registry import find_dataset


def never(source: PublicSet) -> bool:
    """Stand for the question about terms where nothing may be downloaded."""
    raise AssertionError(f"{source.name}: a download was about to begin")


@dataclass
class Place:
    """A home and a data root."""

    home: Path
    root: Path

    def raw(self, name: str) -> Path:
        folder = self.root / name / "raw"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def fetch(self, name: str, agree: Callable[[PublicSet], bool] = never, **more: Any) -> Any:
        return fetch_public(name, home=self.home, data_root=self.root, agree=agree, **more)

    def rows(self, name: str, table: str) -> list[dict[str, Any]]:
        return pq.read_table(self.root / name / f"{table}.parquet").to_pylist()

    def faults(self, name: str) -> list[tuple[str, str, int, str, str, str]]:
        """The quarantine as (table, file, row, column, reason, action)."""
        keys = ("table", "file", "row", "column", "reason", "action")
        return [tuple(f[k] for k in keys) for f in self.rows(name, "quarantine")]  # type: ignore

    def catalog(self, name: str) -> Catalog:
        return load_catalog(find_dataset(name, self.home), self.root)

    def check(self, name: str) -> dict[str, Any]:
        return check_dataset(find_dataset(name, self.home), self.root)
