"""RecTools' SASRec, BERT4Rec and HSTU, trained by its own data preparation and Lightning module.

"time": CPU between the start and the end of an epoch's batches; "train": epochs by ``fit_partial``,
validated on the validation row by NDCG@10 over all unseen items.
"""

from __future__ import annotations

import logging
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from measure import TEST, VALID, Job, train_until_best
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools.dataset import Dataset
from rectools.models import BERT4RecModel, HSTUModel, SASRecModel

MODELS = {"SASRec": SASRecModel, "BERT4Rec": BERT4RecModel, "HSTU": HSTUModel}


class Clock(Callback):
    """CPU seconds of each epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self.started = time.process_time()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.seconds.append(time.process_time() - self.started)


def frame(log: dict[str, np.ndarray], splits: tuple[int, ...]) -> pd.DataFrame:
    rows = np.flatnonzero(np.isin(log["split"], splits))
    when = pd.to_datetime(rows, unit="s")  # rows are in time order within a user
    return pd.DataFrame({"user_id": log["user"][rows], "item_id": log["item"][rows],
                         "datetime": when, "weight": 1.0})  # fmt: skip


def scores(model: Any, log: dict[str, np.ndarray], split: int) -> np.ndarray:
    """Return float32[U + 1, N + 1] given the rows before ``split``; unknown items score -inf."""
    past = Dataset.construct(frame(log, tuple(range(split))))
    users = past.user_id_map.external_ids
    ready = model.data_preparator.transform_dataset_u2i(past, users)
    loader = model.data_preparator.get_dataloader_recommend(ready, model.recommend_batch_size)
    u, v = model.lightning_model._get_user_item_embeddings(loader, "cpu")
    extra = model.data_preparator.n_item_extra_tokens
    out = np.full((int(log["n_users"]) + 1, int(log["n_items"]) + 1), -np.inf, np.float32)
    items = model.data_preparator.get_known_item_ids()
    with torch.no_grad():
        # the model's own: products for SASRec and BERT4Rec, cosines for HSTU
        product = model.lightning_model.torch_model.similarity_module(u, v[extra:]).numpy()
    out[np.ix_(ready.user_id_map.external_ids.astype(int), items.astype(int))] = product
    return out


def ndcg(table: np.ndarray, log: dict[str, np.ndarray], split: int) -> float:
    table = table.copy()
    seen, here = log["split"] < split, log["split"] == split
    table[log["user"][seen], log["item"][seen]] = -np.inf
    table[:, 0] = -np.inf
    user, item = log["user"][here], log["item"][here]
    target = table[user, item]
    rank = 1 + (table[user] > target[:, None]).sum(1)
    return float(np.where((rank <= 10) & np.isfinite(target), 1 / np.log2(rank + 1), 0.0).mean())


def main() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    job = Job()
    log = job.log()
    clock, timing = Clock(), job["mode"] == "time"
    seed_everything(job.get("seed", 0), workers=False)

    def trainer() -> Trainer:
        return Trainer(max_epochs=job["repeats"] + 1 if timing else 1, callbacks=[clock],
                       enable_progress_bar=False, enable_model_summary=False, logger=False,
                       enable_checkpointing=False, devices=1, accelerator="cpu")  # fmt: skip

    model = MODELS[job["model"]](**job.get("config", {}), get_trainer_func=trainer)
    data = Dataset.construct(frame(log, (0,)))
    if timing:
        model.fit(data)
        # the trainer works on a copy of its callbacks
        seconds = next(c for c in model.fit_trainer.callbacks if isinstance(c, Clock)).seconds
        job.result["cpu_per_epoch"] = min(seconds[1:])
    else:

        def improved() -> None:
            for code in (VALID, TEST):
                job.scores(code, scores(model, log, code))
            job.write("rectools", "torch")

        train_until_best(
            job, lambda number: model.fit_partial(data, 1, 1),
            lambda: ndcg(scores(model, log, VALID), log, VALID), improved,
        )  # fmt: skip
    kept = model.data_preparator.train_dataset.interactions.df.groupby("user_id").size()
    job.result["samples"] = int((kept - 1).sum())  # targets: all positions but a user's first
    job.result["parameters"] = sum(p.numel() for p in model.lightning_model.parameters())
    job.write("rectools", "torch", "pytorch-lightning")


if __name__ == "__main__":
    main()
