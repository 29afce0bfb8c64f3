"""Top 10 of a million trained item vectors: the bundle's index against exact search.

    python benchmarks/retrieval.py [--items 1000000] [--quick]

The vectors are trained (BPRMF, softmax over shared negatives) on a drawn log in which users and
items belong to groups, because vectors drawn at random say little about an index. Exact search is
the faster of one product and top-k in torch and faiss ``IndexFlatIP``; one query at a time, one
thread, the least of three passes; recall is of the exact top 10 over users that the index was not
tuned on.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Callable

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import faiss  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from llmers_pipelines.data.training import TRAIN, VALID, IdMap, TrainingData  # noqa: E402
from llmers_pipelines.models.bprmf import BPRMF  # noqa: E402
from llmers_pipelines.registry.index import (  # noqa: E402
    IndexSettings,
    build_index,
    measure_recall,
)
from llmers_pipelines.train.loop import load_loader  # noqa: E402

K = 10


def log(items: int, users: int, per_user: int, groups: int, seed: int = 0) -> TrainingData:
    """Rows of users who mostly choose within three groups of items, popular ones more often."""
    rng = np.random.default_rng(seed)
    own = rng.integers(0, groups, (users, 3))
    size = items // groups
    pick = own[np.arange(users)[:, None], rng.integers(0, 3, (users, per_user))]
    pick = np.where(rng.random(pick.shape) < 0.1, rng.integers(0, groups, pick.shape), pick)
    place = (size * rng.random(pick.shape) ** 2).astype(np.int64)
    item = (pick * size + place + 1).ravel()
    user = np.repeat(np.arange(1, users + 1), per_user)
    split = np.tile([TRAIN] * (per_user - 1) + [VALID], users).astype(np.int8)
    return TrainingData(
        "collaborative", IdMap(tuple(map(str, range(users)))),
        IdMap(tuple(map(str, range(items)))), user, item,
        np.tile(np.arange(per_user), users).astype(np.int64), split,
    )  # fmt: skip


def trained(data: TrainingData, epochs: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return unit user vectors and item vectors float32[N + 1, 64] after the given epochs."""
    base = BPRMF()
    backbone = dataclasses.replace(base, fit=dataclasses.replace(base.fit, batch=batch, lr=1e-2))
    model = backbone.build(data, 0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0, fused=True)
    loader = load_loader(backbone.loader)(data, backbone, 0)
    for number in range(1, epochs + 1):
        losses = []
        for part in loader.epoch(number):
            optimizer.zero_grad(set_to_none=True)
            loss = model.loss(part)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {number}: loss {np.mean(losses):.3f}", flush=True)
    tables = (model.user_table.weight, model.item_table.weight)
    user, item = (torch.nn.functional.normalize(t.detach(), dim=-1).numpy() for t in tables)
    return user[1:], item


def per_query(job: Callable[[np.ndarray], object], queries: np.ndarray, repeats: int = 3) -> float:
    """Return the least mean CPU milliseconds of one query."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        for at in range(len(queries)):
            job(queries[at : at + 1])
        best = min(best, time.process_time() - start)
    return 1e3 * best / len(queries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="50,000 items")
    args = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    items, users = (50_000, 20_000) if args.quick else (args.items, args.users)
    batch = 4096 if args.quick else 65536
    data = log(items, users, 30, max(20, items // 1000))
    start = time.process_time()
    user, item = trained(data, args.epochs, batch)
    print(f"trained: {time.process_time() - start:.0f} CPU-s")
    order = np.random.default_rng(1).permutation(len(user))
    tuning, queries = user[order[:256]], user[order[256:512]]
    table = torch.from_numpy(item[1:])
    flat = faiss.IndexFlatIP(item.shape[1])
    flat.add(item[1:])
    few = queries[:40]
    exact = {
        "torch product and topk": per_query(
            lambda q: torch.topk(table @ torch.from_numpy(q[0]), K), few
        ),
        "faiss IndexFlatIP": per_query(lambda q: flat.search(q, K), few),
    }  # fmt: skip
    base = min(exact.values())
    for name, ms in exact.items():
        print(f"{name:<26} {ms:9.4f} CPU-ms a query")
    for kind in ("ivf", "hnsw"):
        start = time.process_time()
        settings = IndexSettings(kind, k=K)
        index = build_index(item, settings, queries=tuning, unit=True)
        built = time.process_time() - start
        recall = measure_recall(index, queries, K)
        ms = per_query(lambda q, index=index: index.search(q, K), queries)
        print(
            f"{kind} -> {index.kind}, effort {index.effort:<6} {ms:9.4f} CPU-ms a query  "
            f"x{base / ms:.0f}  recall {recall:.4f}  built in {built:.0f} CPU-s", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
