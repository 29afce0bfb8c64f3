"""CPU seconds per LightGCN epoch, beside a plain one: COO adjacency and automatic gradients.

    python benchmarks/lightgcn_epoch.py [--interactions FILE]

FILE as in ``sasrec_epoch.py``. Both sides run the exact BPR loss on the same batches with 3 layers
and width 64. One thread, minimum over repeats.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from sasrec_epoch import default_log, least_cpu, read_log, step

from llmers_pipelines.data.training import TrainingData
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.graph_net import training_graph
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.train.loop import load_loader

BPR = LightGCN(loss="bpr", fit=Fit(lr=1e-3, batch=2048))


def our_epoch(backbone: LightGCN, data: TrainingData) -> Callable[[], None]:
    model = backbone.build(data, 0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    loader = load_loader("pair")(data, backbone, 0)

    def run() -> None:
        for batch in loader.epoch(1):
            step(model, optimizer, model.loss(batch))

    return run


def plain_epoch(data: TrainingData) -> Callable[[], None]:
    matrix = training_graph(data).matrix.to_sparse_coo().coalesce()
    users = torch.nn.Parameter(0.1 * torch.randn(data.n_users + 1, BPR.dim))
    items = torch.nn.Parameter(0.1 * torch.randn(data.n_items + 1, BPR.dim))
    optimizer = torch.optim.Adam([users, items], lr=1e-3)
    loader = load_loader("pair")(data, BPR, 0)

    def run() -> None:
        for batch in loader.epoch(1):
            layers = [torch.cat([users, items])]
            for _ in range(BPR.layers):
                layers.append(torch.sparse.mm(matrix, layers[-1]))
            mixed = torch.stack(layers, 1).mean(1)
            u, v = mixed[: len(users)], mixed[len(users) :]
            gap = (u[batch.user] * (v[batch.positive] - v[batch.negative[:, 0]])).sum(1)
            rows = (users[batch.user], items[batch.positive], items[batch.negative[:, 0]])
            penalty = sum(r.square().sum() for r in rows) / len(batch.user)
            loss = -torch.nn.functional.logsigmoid(gap).mean() + 0.5 * BPR.l2 * penalty
            step(None, optimizer, loss)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--interactions", type=Path, default=default_log())
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = read_log(args.interactions)
    print(f"{data.n_users} users, {data.n_items} items, {int((data.split == 0).sum())} pairs")
    plain = plain_epoch(data)
    plain()
    slow = least_cpu(plain, args.repeats)
    print(f"plain, COO, BPR              {slow:6.2f} CPU-s per epoch")
    shared = dataclasses.replace(LightGCN(), fit=BPR.fit)
    for label, backbone in (("ours, CSR, BPR", BPR), ("ours, CSR, softmax", shared)):
        epoch = our_epoch(backbone, data)
        epoch()
        fast = least_cpu(epoch, args.repeats)
        print(f"{label:<28} {fast:6.2f} CPU-s per epoch  x{slow / fast:.1f}")


if __name__ == "__main__":
    main()
