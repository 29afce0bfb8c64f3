"""Recommendations from the registered champion; no language model in this process."""

from __future__ import annotations

from typing import Any

from ..config import Settings


def recommend(
    settings: Settings, dataset: str, task: str | None, user: str, k: int, *, explain: bool = False
) -> dict[str, Any]:
    """Return the document of ``llmers recommend --json``."""
    from ..data.registry import find_dataset

    description = find_dataset(dataset, settings.home)
    task = task or description.default_task
    description.split(task)
    scorer, version = _champion(settings, dataset, task)
    answer = scorer.recommend(user, k=k, explain=explain)
    return {**answer, "version": version}


def _champion(settings: Settings, dataset: str, task: str) -> tuple[Any, str]:
    from ..registry.mlflow_store import MlflowStore, model_name
    from ..registry.scorer import Scorer

    store = MlflowStore.from_settings(settings)
    version, folder = store.champion(model_name(dataset, task))
    return Scorer.load(folder), version
