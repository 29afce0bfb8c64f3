"""The MLflow run that holds the trials of a search as its children."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .mlflow_store import MlflowStore, model_name
from .training_run import TrainingRun, flat_params, tag_value

PARENT = "mlflow.parentRunId"  # by this tag MLflow's UI nests a run


def open_search(
    store: MlflowStore, run_id: str, *, dataset: str, task: str, name: str,
    params: Mapping[str, Any], tags: Mapping[str, str],
) -> str:  # fmt: skip
    """Return the run of a search: ``run_id`` opened again, or a new one where that is gone."""
    from mlflow.exceptions import MlflowException

    client = store.client()
    if run_id:
        try:
            client.update_run(run_id, status="RUNNING")
            return run_id
        except MlflowException:
            pass  # the tracking store was exchanged
    marks = {"dataset": dataset, "task": task, "published": "no", **tags}
    run = client.create_run(
        store.experiment(model_name(dataset, task)), run_name=f"tune {name}",
        tags={k: tag_value(v) for k, v in marks.items()},
    )  # fmt: skip
    opened = TrainingRun(client, run.info.run_id, run.info.experiment_id)
    opened.log_params(flat_params(params))
    return opened.run_id


def parent_of(store: MlflowStore, run_id: str) -> str:
    """Return the run that ``run_id`` is nested in, "" where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return str(store.client().get_run(run_id).data.tags.get(PARENT, ""))
    except MlflowException:
        return ""


def tell_search(store: MlflowStore, run_id: str, metrics: Mapping[str, float], step: int) -> None:
    """Add figures of a search, after ``step`` trials."""
    TrainingRun(store.client(), run_id, "").log_metrics(metrics, step)


def close_search(store: MlflowStore, run_id: str, *, done: bool, tags: Mapping[str, str]) -> None:
    """End the run of a search; one that stopped early can be opened again."""
    client = store.client()
    for name, value in tags.items():
        client.set_tag(run_id, name, tag_value(value))
    client.set_terminated(run_id, "FINISHED" if done else "KILLED")
