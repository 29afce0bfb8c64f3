"""This project's models on a given split, under the same jobs as the peers' runners.

``model`` is a class name of ``llmers_pipelines.api``, ``config`` its settings (``fit`` as a table).
"time": whole epochs, one warm-up before; "train": the shared loop, selection as it is used.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from measure import TEST, VALID, Job, least_cpu

from llmers_pipelines import api
from llmers_pipelines.data.training import TrainingData
from llmers_pipelines.evaluate.predict import rank_table, scored_blocks
from llmers_pipelines.evaluate.ranking import user_values
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.histories import history_before
from llmers_pipelines.models.knowledge_settings import GraphOfFacts
from llmers_pipelines.models.ranking_net import full_metric
from llmers_pipelines.models.served import Served, fold
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.train.loop import fit, load_loader, take_steps
from llmers_pipelines.train.optimizer_net import optimizer_of


def backbone_of(job: Job) -> Any:
    options = dict(job.get("config", {}))
    kind = getattr(api, job["model"])
    graph = issubclass(kind, GraphOfFacts)
    made = kind(kg=api.knowledge, link=api.knowledge_links) if graph else kind()
    if "fit" in options:
        options["fit"] = dataclasses.replace(made.fit, **options["fit"])
        assert isinstance(options["fit"], Fit)
    return dataclasses.replace(made, **options)


def inputs_of(job: Job, backbone: Any, data: TrainingData) -> dict[Any, pa.Table]:
    """Return the tables that a backbone reads beside the log: triples and links, or none."""
    if not isinstance(backbone, GraphOfFacts):
        return {}
    facts = job.facts()
    items = np.flatnonzero(facts["linked"])
    words = {n: facts[n].astype(str) for n in ("head", "relation", "tail")}
    return {
        backbone.kg: pa.table({"head_id": words["head"], "relation": words["relation"],
                               "tail_id": words["tail"]}),
        backbone.link: pa.table({"item_id": [data.items.ids[i - 1] for i in items],
                                 "entity_id": items.astype(str)}),
    }  # fmt: skip


def epochs_of(model: Any, backbone: Any, data: TrainingData) -> tuple[Callable[[], None], Any]:
    """Return the steps of one epoch as the shared loop takes them, and its loader."""
    loader = load_loader(backbone.loader)(data, backbone, 0)
    optimizer = optimizer_of(model, backbone.fit)
    model.train()

    def epoch() -> None:
        take_steps(model, loader, optimizer, backbone.fit, 1, 0, model.loss)

    return epoch, loader


def time_epochs(job: Job, backbone: Any, data: TrainingData) -> None:
    model = backbone.build(data, 0)
    epoch, loader = epochs_of(model, backbone, data)
    epoch()
    job.result["cpu_per_epoch"] = least_cpu(epoch, job["repeats"])
    job.result["steps"] = loader.steps_per_epoch
    job.result["parameters"] = sum(p.numel() for p in model.parameters())


def train(job: Job, backbone: Any, data: TrainingData) -> None:
    started = time.process_time()
    history = job.result["history"]

    def progress(record: dict[str, Any]) -> None:
        if record["valid"] is not None:
            history.append([record["epoch"], time.process_time() - started, record["valid"]])
            print(f"epoch {record['epoch']}: {history[-1][1]:.1f} CPU-s, {record['valid']:.4f}",
                  flush=True)  # fmt: skip

    node = Train(backbone, Table("splits", task=data.task))
    inputs = inputs_of(job, backbone, data)
    trained = fit(node, data, inputs, seed=job.get("seed", 0), progress=progress)
    job.result |= {
        "cpu_total": time.process_time() - started, "best_epoch": trained.best_epoch,
        "valid": trained.best_valid,
        "cpu_to_best": next((h[1] for h in history if h[0] == trained.best_epoch), None),
    }  # fmt: skip
    for split in (VALID, TEST):
        if data.label is not None or data.task == "rating":
            rows = np.flatnonzero(data.split == split)
            job.scores(split, np.asarray(trained.predict(rows), np.float64))
            continue
        seen = history_before(data, split)
        out = np.full((data.n_users + 1, data.n_items + 1), -np.inf, np.float32)
        users = np.unique(data.user[data.split == split])
        for part, scores in scored_blocks(trained, data, seen, users):
            out[part] = scores
        job.scores(split, out)


def evaluate(job: Job, backbone: Any, data: TrainingData) -> None:
    """Full-ranking evaluation on the test split after ``epochs`` of training."""
    model = backbone.build(data, 0)
    epoch, _ = epochs_of(model, backbone, data)
    for _ in range(job["epochs"]):
        epoch()
    served = Served(fold(model.eval()))
    with torch.no_grad():
        job.result["cpu_validate"] = least_cpu(
            lambda: full_metric("ndcg@10", model, data, TEST), job["repeats"]
        )
        full = user_values(rank_table(served, data, TEST), ["ndcg@10"]).means()["ndcg@10"]
        job.result["ndcg@10"] = [full_metric("ndcg@10", model, data, TEST), full]
        job.result["cpu_rank_table"] = least_cpu(
            lambda: user_values(rank_table(served, data, TEST), ["ndcg@10", "hr@10"]),
            job["repeats"],
        )


def main() -> None:
    torch.set_num_threads(1)
    job = Job()
    data = TrainingData.load(job.split)
    backbone = backbone_of(job)
    modes = {"time": time_epochs, "train": train, "evaluate": evaluate}
    modes[job["mode"]](job, backbone, data)
    job.write("torch", "numpy")


if __name__ == "__main__":
    main()
