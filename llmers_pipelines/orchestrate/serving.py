"""Recommendations from the registered champion; no language model in this process."""

from __future__ import annotations

from typing import Any

from ..config import Settings


def recommend(
    settings: Settings, dataset: str, task: str | None, user: str, k: int, *, explain: bool = False,
    method: str | None = None, explore: Any = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the document of ``llmers recommend --json``.

    ``method`` names the recommender whose newest registered version answers, whatever the gate said
    of it; by default the champion does. ``explore``: see ``Scorer.recommend``.
    """
    from ..data.registry import find_dataset

    description = find_dataset(dataset, settings.home)
    task = task or description.default_task
    description.split(task)
    if method is None:
        scorer, version = champion_of(settings, dataset, task)
    else:
        scorer, version = _version_of(settings, dataset, task, method)
    answer = scorer.recommend(user, k=k, explain=explain, explore=explore)
    return {**answer, "version": version}


def _version_of(settings: Settings, dataset: str, task: str, method: str) -> tuple[Any, str]:
    from ..registry.mlflow_store import MlflowStore, model_name
    from ..registry.scorer import Scorer

    store, name = MlflowStore.from_settings(settings), model_name(dataset, task)
    found = [LookupError(f"no version of {name!r} is registered")]
    for prefix in ("recommenders", "student_weights"):
        try:
            version = store.newest_of(name, f"{prefix}/{method.rpartition('/')[2]}")
        except LookupError as error:
            found.append(error)
        else:
            return Scorer.load(store.bundle_folder(name, version), version=version), version
    raise found[1]


def champion_of(
    settings: Settings, dataset: str, task: str, *,
    kept: dict[tuple[str, str], Any] | None = None, most: int = 1,
) -> tuple[Any, str]:  # fmt: skip
    """Return the scorer of a task's champion and its version.

    ``kept`` holds opened scorers by model and version, at most ``most``, oldest first to go.
    """
    from ..registry.mlflow_store import MlflowStore, model_name
    from ..registry.scorer import Scorer

    store, name = MlflowStore.from_settings(settings), model_name(dataset, task)
    version, folder = store.champion(name)
    if kept is None:
        return Scorer.load(folder), version
    if (name, version) not in kept:
        kept[(name, version)] = Scorer.load(folder)
        while len(kept) > most:
            del kept[next(iter(kept))]
    return kept[(name, version)], version
