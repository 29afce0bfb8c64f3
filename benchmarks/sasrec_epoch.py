"""CPU seconds per SASRec epoch, beside the usual way: one padded sample per target.

    python benchmarks/sasrec_epoch.py [--interactions FILE] [--peer-steps 3]

FILE is Parquet with user_id, item_id, timestamp (default: ml100k below LLMERS_DATA_ROOT; without
it a synthetic log of that size). Both sides train the same targets with the same network (2 blocks,
2 heads, dropout .5, all items in the softmax); the usual way cuts every prefix into a sample of its
own, padded to 50, and computes full logits, as RecBole does. One thread, minimum over repeats; the
peer's epoch is extrapolated from its steps.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from llmers_pipelines.data.training import TrainingData  # noqa: E402
from llmers_pipelines.models.batches import SequenceBatch, left_pad  # noqa: E402
from llmers_pipelines.models.sasrec import SASRec  # noqa: E402
from llmers_pipelines.testing.planted import leave_one_out, planted_rings  # noqa: E402
from llmers_pipelines.train.loop import load_loader, take_steps  # noqa: E402
from llmers_pipelines.train.optimizer_net import optimizer_of  # noqa: E402

PEER_BATCH = 2048


def read_log(path: Path | None) -> TrainingData:
    """Return the leave-one-out log of a file, or a synthetic one of the size of ML-100K."""
    if path is None:
        return planted_rings(943, 1682, length=(20, 192), follow=0.5).data
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["user_id", "item_id", "timestamp"])
    user, item = (
        np.unique(table[c].cast("string").to_numpy(zero_copy_only=False), return_inverse=True)
        for c in ("user_id", "item_id")
    )
    order = np.lexsort((table["timestamp"].to_numpy(), user[1]))
    cuts = np.flatnonzero(np.diff(user[1][order])) + 1
    return leave_one_out(np.split(item[1][order] + 1, cuts), len(item[0]))


def default_log() -> Path | None:
    path = Path(os.environ.get("LLMERS_DATA_ROOT", "")) / "ml100k" / "interactions.parquet"
    return path if path.is_file() else None


def least_cpu(job: Callable[[], object], repeats: int) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        job()
        best = min(best, time.process_time() - start)
    return best


def step(model, optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def our_epoch(backbone: Any, data: TrainingData) -> Callable[[], None]:
    model = backbone.build(data, 0).train()
    optimizer = optimizer_of(model, backbone.fit)
    loader = load_loader(backbone.loader)(data, backbone, 0)

    def run() -> None:
        take_steps(model, loader, optimizer, backbone.fit, 1, 0, model.loss)

    return run


def peer_step(backbone: SASRec, data: TrainingData) -> Callable[[], None]:
    model = backbone.build(data, 0).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    train = data.split == 0
    item, user = data.item[train], data.user[train]
    first = np.searchsorted(user, user)
    rows = np.flatnonzero(np.arange(len(user)) > first)  # every row with something before it
    picked = np.random.default_rng(0).choice(rows, min(PEER_BATCH, len(rows)), replace=False)
    prefixes = [item[max(first[r], r - backbone.max_len) : r] for r in picked]
    padded = np.zeros((len(prefixes), backbone.max_len), np.int64)
    short = left_pad(prefixes, backbone.max_len)
    padded[:, -short.shape[1] :] = short
    batch = SequenceBatch(torch.from_numpy(user[picked]), torch.from_numpy(padded))
    targets = torch.from_numpy(item[picked])

    def run() -> None:
        logits = model.user_state(batch) @ model.item_table.weight.T
        step(model, optimizer, F.cross_entropy(logits, targets))

    run.steps = len(rows) / len(picked)  # type: ignore[attr-defined]
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--interactions", type=Path, default=default_log())
    parser.add_argument("--peer-steps", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = read_log(args.interactions)
    targets = int((data.split == 0).sum() - len(np.unique(data.user[data.split == 0])))
    print(f"{data.n_users} users, {data.n_items} items, {targets} targets")
    usual = SASRec(layers=2, heads=2, positions="right")
    peer = peer_step(usual, data)
    peer()
    slow = least_cpu(peer, args.peer_steps) * peer.steps  # type: ignore[attr-defined]
    print(f"one sample per target, 2 blocks    {slow:8.2f} CPU-s per epoch (extrapolated)")
    for label, backbone in (("ours, 2 blocks", usual), ("ours, default", SASRec())):
        epoch = our_epoch(backbone, data)
        epoch()
        fast = least_cpu(epoch, args.repeats)
        rate = targets / fast
        print(f"{label:<34} {fast:8.2f} CPU-s per epoch  x{slow / fast:.0f}  {rate:,.0f} targets/s")


if __name__ == "__main__":
    main()
