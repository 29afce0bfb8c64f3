"""``LLMERS_HOME``: folders, Dagster's instance and the data sets as its partitions."""

from __future__ import annotations

import shutil

import dagster as dg

from ..config import PROJECT, Settings


def ensure_home(settings: Settings) -> None:
    """Create the folders of ``LLMERS_HOME`` and Dagster's settings where they are missing."""
    for folder in (settings.dagster_home, settings.data, settings.mlflow_folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name in ("dagster.yaml", "workspace.yaml"):
        target = settings.dagster_home / name
        source = PROJECT / "dagster_home" / name
        if not target.exists() and source.is_file():
            shutil.copyfile(source, target)
    settings.apply_environment()


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """Return the persistent instance with every known data set as a partition."""
    from ..data.registry import list_datasets

    ensure_home(settings)
    instance = dg.DagsterInstance.get()
    names = [d["name"] for d in list_datasets(settings.home)]
    known = set(instance.get_dynamic_partitions("dataset"))
    missing = [n for n in names if n not in known]
    if missing:
        instance.add_dynamic_partitions("dataset", missing)
    return instance
