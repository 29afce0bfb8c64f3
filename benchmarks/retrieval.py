"""Top 10 of a million trained item vectors: the bundle's index against exact search.

    python benchmarks/retrieval.py [--items 1000000] [--quick] [--keep FOLDER] [--kinds 'ivf;ivf8']

The vectors are trained (BPRMF, softmax over shared negatives) until validation stops rising, on a
drawn log with 20 rows per item, because vectors drawn at random say little about an index. The log
has structure of three kinds that lie across each other: a tree of categories, styles that run
through all of them, and popularity; each user has own shares of each. ``--keep`` stores the vectors
and reads them again. Exact search is the faster of one product and top-k in torch and faiss
``IndexFlatIP``; one query at a time, one thread, the least of three passes; recall is of the exact
top 10 over users that the index was not tuned on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    set_effort,
    unseen,
)
from llmers_pipelines.train.loop import load_loader  # noqa: E402

K = 10
LEAVES, STYLES, PLACES = 10, 10, 5  # of a category; of a leaf; of a style within a leaf
INTERESTS, ROWS = 3, 51  # of a user; the last row is for validation
RANDOM = 0.1  # share of rows outside of the interests


def drawn(rng: np.random.Generator, shares: np.ndarray, n: int) -> np.ndarray:
    """Return n draws (rows, n) from each row of ``shares`` (rows, choices)."""
    edges = shares.cumsum(1)
    edges /= edges[:, -1:]
    place = rng.random((len(shares), n))
    return (place[:, :, None] >= edges[:, None, :-1]).sum(2)


def log(items: int, users: int, seed: int = 0) -> TrainingData:
    """Rows of users with own shares of categories, of the leaves in them, and of styles."""
    rng = np.random.default_rng(seed)
    categories = items // (LEAVES * STYLES * PLACES)
    popular = np.arange(1, categories + 1) ** -0.5
    within = 1.0 / np.arange(1, PLACES + 1)
    # positions say nothing of the structure; counted from the end, because the index draws what it
    # learns its cells from by the same permutation
    name = items - rng.permutation(items)
    blocks = []
    for at in range(0, users, 10_000):
        n = min(10_000, users - at)
        own = rng.choice(categories, (n, INTERESTS), p=popular / popular.sum())
        which = drawn(rng, rng.dirichlet(np.ones(INTERESTS), n), ROWS)
        category = np.take_along_axis(own, which, 1)
        leaf = np.empty_like(which)
        for i in range(INTERESTS):
            leaf = np.where(which == i, drawn(rng, rng.dirichlet(0.5 * np.ones(LEAVES), n), ROWS),
                            leaf)  # fmt: skip
        style = drawn(rng, rng.dirichlet(0.3 * np.ones(STYLES), n), ROWS)
        other = rng.random(which.shape) < RANDOM
        category[other] = rng.choice(categories, other.sum(), p=popular / popular.sum())
        place = drawn(rng, np.tile(within, (n, 1)), ROWS)
        item = ((category * LEAVES + leaf) * STYLES + style) * PLACES + place
        blocks.append(name[item].astype(np.int32))
    item = np.concatenate(blocks).astype(np.int64).ravel()
    split = np.tile([TRAIN] * (ROWS - 1) + [VALID], users).astype(np.int8)
    return TrainingData(
        "collaborative", IdMap(tuple(map(str, range(users)))),
        IdMap(tuple(map(str, range(items)))), np.repeat(np.arange(1, users + 1), ROWS), item,
        np.tile(np.arange(ROWS), users).astype(np.int64), split,
    )  # fmt: skip


def trained(
    data: TrainingData, batch: int, seconds: float, keep: Path | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return unit user vectors and item vectors float32[N + 1, 64] of the best epoch.

    Training ends when the recall of the validation items in the top 100 stops rising, or after as
    many CPU seconds. What ``keep`` holds of an earlier training is gone on from, without the
    moments of the optimizer.
    """
    base = BPRMF(temperature=0.1, l2=0.0)
    backbone = dataclasses.replace(base, fit=dataclasses.replace(base.fit, batch=batch))
    model = backbone.build(data, 0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0, fused=True)
    loader = load_loader(backbone.loader)(data, backbone, 0)
    some = np.random.default_rng(2).permutation(data.n_users)[:1000]
    aim = data.item[data.split == VALID][some]
    start, best, number, kept = time.process_time(), -1.0, 0, (np.zeros(0), np.zeros(0))
    if keep is not None and (keep / "progress.json").is_file():
        number, best = json.loads((keep / "progress.json").read_text())
        kept = np.load(keep / "user.npy"), np.load(keep / "item.npy")
        with torch.no_grad():
            model.user_table.weight[1:] = torch.from_numpy(kept[0])
            model.item_table.weight.copy_(torch.from_numpy(kept[1]))
    while time.process_time() - start < seconds or not len(kept[0]):
        number += 1
        losses = []
        for part in loader.epoch(number):
            optimizer.zero_grad(set_to_none=True)
            loss = model.loss(part)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        tables = (model.user_table.weight, model.item_table.weight)
        user, item = (torch.nn.functional.normalize(t.detach(), dim=-1).numpy() for t in tables)
        flat = faiss.IndexFlatIP(item.shape[1])
        flat.add(item[1:])
        found = flat.search(user[1 + some], 100)[1] + 1
        recall = float((found == aim[:, None]).any(1).mean())
        print(f"epoch {number}: loss {np.mean(losses):.3f}, validation recall@100 {recall:.3f}, "
              f"{time.process_time() - start:.0f} CPU-s", flush=True)  # fmt: skip
        if recall <= best:
            if keep is not None:
                (keep / "finished").touch()
            break
        best, kept = recall, (user[1:].copy(), item)
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            np.save(keep / "user.npy", kept[0])
            np.save(keep / "item.npy", kept[1])
            (keep / "progress.json").write_text(json.dumps([number, best]))
    return kept


def per_query(job: Callable[[np.ndarray], object], queries: np.ndarray, repeats: int = 3) -> float:
    """Return the least mean CPU milliseconds of one query."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        for at in range(len(queries)):
            job(queries[at : at + 1])
        best = min(best, time.process_time() - start)
    return 1e3 * best / len(queries)


def megabytes(index: Any) -> float:
    return faiss.serialize_index(index).nbytes / 2**20


def vectors(
    args: argparse.Namespace, items: int, data: TrainingData
) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors of users and items, trained now or, with ``--keep``, before."""
    keep = args.keep / str(items) if args.keep else None
    if keep is not None and (keep / "finished").is_file():
        return np.load(keep / "user.npy"), np.load(keep / "item.npy")
    return trained(data, max(4096, items * 131072 // 1_000_000), args.seconds, keep)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=1200.0, help="CPU-s of training at most")
    parser.add_argument("--kinds", default="hnsw;ivf;ivf8", help="of the index, separated by ;")
    parser.add_argument("--keep", type=Path, help="folder for the trained vectors")
    parser.add_argument("--quick", action="store_true", help="50,000 items")
    args = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    items = 50_000 if args.quick else args.items
    start = time.process_time()
    data = log(items, int(items * 0.4))
    print(f"log: {len(data.user):,} rows, {time.process_time() - start:.0f} CPU-s", flush=True)
    user, item = vectors(args, items, data)
    order = np.random.default_rng(1).permutation(len(user))
    tuning, queries = user[order[:256]], user[order[256:512]]
    rows = data.item.reshape(-1, ROWS)[:, :-1]  # the last row of a user is for validation
    seen = [np.unique(rows[u]) for u in order[:512]]
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
    print(f"vectors for exact search: {megabytes(flat):,.0f} MB")
    top = flat.search(queries, K)[1] + 1
    for kind in args.kinds.split(";"):
        start = time.process_time()
        settings = IndexSettings(kind, k=K)
        index = build_index(item, settings, queries=tuning, unit=True)
        built = time.process_time() - start
        print(f"{kind} -> {index.kind}, built in {built:.0f} CPU-s, "
              f"{megabytes(index.faiss_index):,.0f} MB", flush=True)  # fmt: skip
        for effort in sorted({max(1, index.effort // part) for part in (1, 2, 4, 8)}):
            if index.kind != "flat":
                set_effort(index.faiss_index, index.kind, effort)
            recall = measure_recall(index, queries, K, top)
            ms = per_query(lambda q, index=index: index.search(q, K), queries)
            chosen = "  <- chosen" if effort == index.effort else ""
            print(f"  effort {effort:<6} {ms:9.4f} CPU-ms a query  x{base / ms:<6.0f} "
                  f"recall {recall:.4f}{chosen}", flush=True)  # fmt: skip
        if index.kind != "flat":
            print(unseen_row(item, settings, tuning, queries, seen, flat), flush=True)


def unseen_row(
    item: np.ndarray, settings: IndexSettings, tuning: np.ndarray, queries: np.ndarray,
    seen: list[np.ndarray], flat: Any,
) -> str:  # fmt: skip
    """Return the line of the best items that users have not seen: the index asks for as many more,
    with the effort that recall of the others needs, and exact search for k and the seen."""
    half, most = len(tuning), max(map(len, seen))
    index = build_index(item, settings, queries=tuning, seen=seen[:half], unit=True)
    asked = seen[half:]

    def from_index(at: int) -> np.ndarray:
        return unseen(index.search(queries[at : at + 1], index.most)[1], asked[at : at + 1], K)

    def from_all(at: int) -> np.ndarray:
        found = flat.search(queries[at : at + 1], K + most)[1] + 1
        return unseen(found, asked[at : at + 1], K)

    exact = np.concatenate([from_all(at) for at in range(len(queries))])
    recall = measure_recall(index, queries, K, exact, asked)
    places = np.arange(len(queries))
    base = per_query(lambda at: from_all(int(at[0])), places[:40], 2)
    ms = per_query(lambda at: from_index(int(at[0])), places)
    found = (
        f"effort {index.effort:<6} {ms:9.4f} CPU-ms a query, exact {base:.3f}  x{base / ms:<6.0f}"
    )
    return f"  unseen items alone, {index.most} asked for: {found} recall {recall:.4f}"


if __name__ == "__main__":
    main()
