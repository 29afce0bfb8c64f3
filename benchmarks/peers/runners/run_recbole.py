"""RecBole's own models, loaders and trainer on a given split; see ``measure.Job`` for the form.

``mode`` "time": CPU of real steps of ``Trainer._train_epoch``; "train": with RecBole's validation
metric for the selection, scores of the best epoch handed back; "evaluate": one full-ranking pass of
``Trainer.evaluate`` with weights as drawn.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from measure import TEST, VALID, Job, before, least_cpu, train_until_best

# RecBole 1.2.1 uses names that numpy and scipy have dropped since; none is in a training step.
_DROPPED = {"float": float, "int": int, "long": int, "bool": bool, "object": object}
for _name, _type in _DROPPED.items():
    if _name not in np.__dict__:
        setattr(np, _name, _type)
if not hasattr(scipy.sparse.dok_matrix, "_update"):
    scipy.sparse.dok_matrix._update = lambda self, entries: self._dict.update(entries)

from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.utils import get_model, get_trainer, init_seed  # noqa: E402

FACTS = {"CKE", "CFKG"}  # read a knowledge graph
HISTORY = {"DIN", "DIEN"}  # click models that RecBole has among the sequential ones
CTR = {"DeepFM", "DCNV2", "AutoInt", "xDeepFM", *HISTORY}
# Over all items, so without sampled negatives.
SOFTMAX = {"SASRec", "GRU4Rec", "BERT4Rec", "SRGNN", "Caser", "SINE"}


class FirstSteps:
    """The first batches of a loader."""

    def __init__(self, loader: Any, steps: int) -> None:
        self.loader, self.steps, self.shuffle = loader, steps, True

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(self.loader):
            if number == self.steps:
                return
            yield batch

    def __len__(self) -> int:
        return self.steps


def write_atomic(job: Job, log: dict[str, np.ndarray]) -> dict[str, Any]:
    """Write RecBole's atomic files; return the settings that name them."""
    folder = job.out / "recbole" / "log"
    folder.mkdir(parents=True, exist_ok=True)
    user, item = log["user"], log["item"]
    if job["model"] not in CTR:
        first = np.searchsorted(user, user)
        order = np.arange(len(user)) - first  # RecBole keeps times as float32
        _table(folder / "log.inter", {"user_id:token": user, "item_id:token": item,
                                      "timestamp:float": order})  # fmt: skip
        beside = write_facts(job, folder) if job["model"] in FACTS else {}
        return {
            "load_col": {"inter": ["user_id", "item_id", "timestamp"], **beside},
            "eval_args": {"split": {"LS": "valid_and_test"}, "group_by": "user", "order": "TO",
                          "mode": "full"},
            **({"train_neg_sample_args": None} if job["model"] in SOFTMAX else {}),
            "metrics": ["NDCG", "Hit"], "topk": [10], "valid_metric": "NDCG@10",
        }  # fmt: skip
    rows = {"user_id:token": user, "item_id:token": item, "label:float": log["label"]}
    if job["model"] in HISTORY:
        rows |= histories(job, log)
    for code, name in enumerate(("train", "valid", "test")):
        here = log["split"] == code
        _table(folder / f"log.{name}.inter", {n: column[here] for n, column in rows.items()})
    load = {"inter": [name.partition(":")[0] for name in rows]}
    for side in ("user", "item"):
        fields = {n.split(".", 1)[1]: c for n, c in log.items() if n.startswith(f"{side}_field.")}
        count = len(next(iter(fields.values())))
        columns: dict[str, Any] = {f"{side}_id:token": np.arange(1, count)}
        for name, codes in fields.items():
            kind = "token" if codes.ndim == 1 else "token_seq"
            columns[f"{name}:{kind}"] = codes[1:]
        _table(folder / f"log.{side}", columns)
        load[side] = [f"{side}_id", *fields]
    return {
        "load_col": load, "benchmark_filename": ["train", "valid", "test"],
        "train_neg_sample_args": None, "threshold": None, "alias_of_item_id": load["inter"][3:],
        "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": "user", "mode": "labeled",
                      "order": "TO" if job["model"] in HISTORY else "RO"},  # rows stay as given
        "metrics": ["AUC", "LogLoss"], "valid_metric": "AUC",
    }  # fmt: skip


def histories(job: Job, log: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns of a history (R, L): liked items, oldest first, and DIEN's negatives.

    A negative is another item, drawn once per liked row as RecBole's own data set does. An empty
    history is written as an item of its own: RecBole's DIEN fails on one without items.
    """
    liked, length = log["liked"], job["config"]["MAX_ITEM_LIST_LENGTH"]
    others = np.random.default_rng(job.get("seed", 0)).integers(1, log["n_items"], len(liked))
    others += others >= liked
    return {"item_id_list:token_seq": before(log, liked, length),
            "neg_item_id_list:token_seq": before(log, others, length)}  # fmt: skip


def write_facts(job: Job, folder: Path) -> dict[str, list[str]]:
    """Write the triples and the links of items that have some; return the columns to load."""
    facts = job.facts()
    _table(folder / "log.kg", {"head_id:token": facts["head"], "relation_id:token":
                               facts["relation"], "tail_id:token": facts["tail"]})  # fmt: skip
    items = np.flatnonzero(facts["linked"])
    _table(folder / "log.link", {"item_id:token": items, "entity_id:token": items})
    return {"kg": ["head_id", "relation_id", "tail_id"], "link": ["item_id", "entity_id"]}


def keep_all_rows() -> None:
    """Let a knowledge-aware data set keep the interactions of items without an entity.

    RecBole drops them, which would be another log; its models give such an item a vector of its own
    where an entity's would be.
    """
    from recbole.data.dataset import KnowledgeBasedDataset

    filter_link = KnowledgeBasedDataset._filter_link

    def kept(self: Any) -> None:
        rows = self.inter_feat.copy()
        filter_link(self)
        self.inter_feat = rows

    KnowledgeBasedDataset._filter_link = kept


def _table(path: Path, columns: dict[str, np.ndarray]) -> None:
    def words(array: np.ndarray) -> list[str]:
        if array.ndim == 2:
            return [" ".join(str(v) for v in row if v) or "0" for row in array.tolist()]
        return [str(v) for v in array.tolist()]

    rows = zip(*(words(a) for a in columns.values()), strict=True)
    path.write_text("\n".join(["\t".join(columns), *("\t".join(r) for r in rows)]) + "\n")


def row_scores(trainer: Any, loader: Any, dataset: Any, shape: tuple[int, int]) -> np.ndarray:
    """Return float32 by user and item position of one full-ranking loader, once it validated."""
    trainer.model.eval()
    out = np.full(shape, -np.inf, np.float32)
    users = np.array([int(t) if t.isdigit() else 0 for t in dataset.field2id_token["user_id"]])
    items = np.array([int(t) if t.isdigit() else 0 for t in dataset.field2id_token["item_id"]])
    with torch.no_grad():
        for rows in loader:
            batch, scores, *_ = trainer._full_sort_batch_eval(rows)
            scores = scores.numpy()
            out[np.ix_(users[batch["user_id"].numpy()], items)] = scores
    return out


def click_scores(model: Any, loader: Any) -> np.ndarray:
    model.eval()
    with torch.no_grad():
        return np.concatenate([model.predict(b[0]).numpy() for b in loader]).astype(np.float64)


def main() -> None:
    torch.set_num_threads(1)
    job = Job()
    os.chdir(job.out)  # RecBole writes logs and checkpoints where it runs
    log = job.log()
    settings = {
        "data_path": str(job.out / "recbole"), "use_gpu": False, "show_progress": False,
        "state": "ERROR", "seed": job.get("seed", 2020), "reproducibility": True,
        **write_atomic(job, log), **job.get("config", {}),
    }  # fmt: skip
    config = Config(model=job["model"], dataset="log", config_dict=settings)
    logging.disable(logging.WARNING)
    if job["model"] in FACTS:
        keep_all_rows()
    torch.autograd.set_detect_anomaly(False)  # the module of SINE turns it on
    init_seed(config["seed"], True)
    start = time.process_time()
    dataset = create_dataset(config)
    train, valid, test = data_preparation(config, dataset)
    job.result["prepare_cpu"] = time.process_time() - start
    model = get_model(config["model"])(config, train._dataset)
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    job.result["samples"], job.result["steps"] = len(train._dataset), len(train)
    job.result["parameters"] = sum(p.numel() for p in model.parameters())
    if job["mode"] == "time":
        steps = min(job.get("time_steps") or len(train), len(train))
        few = FirstSteps(train, steps)
        trainer._train_epoch(FirstSteps(train, 1), 0)  # first step: allocations
        seconds = least_cpu(lambda: trainer._train_epoch(few, 0), job["repeats"])
        job.result |= {"timed_steps": steps, "cpu_per_step": seconds / steps,
                       "cpu_per_epoch": seconds / steps * len(train)}  # fmt: skip
    elif job["mode"] == "evaluate":
        job.result["cpu_evaluate"] = least_cpu(
            lambda: trainer.evaluate(test, load_best_model=False), job["repeats"]
        )
    else:
        clicks = job["model"] in CTR
        shape = (int(log["n_users"]) + 1, int(log["n_items"]) + 1)

        def improved() -> None:
            for code, loader in ((VALID, valid), (TEST, test)):
                job.scores(code, click_scores(model, loader) if clicks
                           else row_scores(trainer, loader, dataset, shape))  # fmt: skip
            job.write("recbole", "torch")

        train_until_best(
            job, lambda number: trainer._train_epoch(train, number),
            lambda: float(trainer._valid_epoch(valid)[0]), improved,
        )  # fmt: skip
    job.write("recbole", "torch")


if __name__ == "__main__":
    main()
