"""Full-ranking evaluation: our rank counting against named peers on the same scores.

    python benchmarks/full_ranking.py [--users 5000] [--items 5000] [--history 20]

Prints CPU seconds (one thread, minimum over repeats) from finished scores to NDCG@10, and the ratio
to ours. All peers mask what the user has seen and must arrive at the same NDCG@10.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402

from llmers_pipelines.data.training import TEST, TRAIN, IdMap, TrainingData  # noqa: E402
from llmers_pipelines.evaluate.predict import rank_table  # noqa: E402
from llmers_pipelines.evaluate.ranking import user_values  # noqa: E402


class Finished:
    """A model whose scores are known: float32[U + 1, N + 1] by user."""

    def __init__(self, scores: np.ndarray) -> None:
        self.table = scores

    def scores(self, users: np.ndarray, histories: Sequence[np.ndarray]) -> np.ndarray:
        return self.table[users]


def draw(n_users: int, n_items: int, history: int, seed: int = 0) -> tuple[TrainingData, Finished]:
    rng = np.random.default_rng(seed)
    keys = rng.random((n_users, n_items), dtype=np.float32)
    items = np.argpartition(keys, history + 1, axis=1)[:, : history + 1] + 1
    user = np.repeat(np.arange(1, n_users + 1), history + 1)
    split = np.full((n_users, history + 1), TRAIN, np.int8)
    split[:, -1] = TEST
    data = TrainingData(
        "sequential", IdMap(tuple(f"u{i}" for i in range(n_users))),
        IdMap(tuple(f"i{i}" for i in range(n_items))), user, items.ravel().astype(np.int64),
        np.tile(np.arange(history + 1), n_users), split.ravel(),
    )  # fmt: skip
    scores = rng.standard_normal((n_users + 1, n_items + 1), dtype=np.float32)
    scores[np.arange(1, n_users + 1), items[:, -1]] += 2.5  # some targets reach the first ten
    return data, Finished(scores)


def ours(data: TrainingData, model: Finished) -> float:
    return user_values(rank_table(model, data, TEST), ["ndcg@10"]).means()["ndcg@10"] or 0.0


def masked(data: TrainingData, model: Finished) -> tuple[np.ndarray, np.ndarray]:
    """Return scores float32[U, N] with seen items at -inf, and the target's column int64[U]."""
    scores = model.table[1:, 1:].copy()
    seen = data.split == TRAIN
    scores[data.user[seen] - 1, data.item[seen] - 1] = -np.inf
    return scores, data.item[data.split == TEST] - 1


def argsort(data: TrainingData, model: Finished) -> float:
    scores, target = masked(data, model)
    place = np.empty(len(scores))
    for i, row in enumerate(scores):
        place[i] = np.flatnonzero(np.argsort(-row) == target[i])[0] + 1
    return float(np.where(place <= 10, 1 / np.log2(place + 1), 0.0).mean())


def double_argsort(data: TrainingData, model: Finished) -> float:
    scores, target = masked(data, model)
    place = np.empty(len(scores))
    for i, row in enumerate(scores):
        place[i] = np.argsort(np.argsort(-row))[target[i]] + 1
    return float(np.where(place <= 10, 1 / np.log2(place + 1), 0.0).mean())


def torchmetrics(data: TrainingData, model: Finished) -> float:
    import torch
    from torchmetrics.functional.retrieval import retrieval_normalized_dcg

    torch.set_num_threads(1)
    scores, target = masked(data, model)
    total, relevant = 0.0, torch.zeros(scores.shape[1], dtype=torch.bool)
    for row, at in zip(torch.from_numpy(scores), target, strict=True):
        relevant[at] = True
        total += float(retrieval_normalized_dcg(row, relevant, top_k=10))
        relevant[at] = False
    return total / len(scores)


def cpu_seconds(call: Callable[[], float], repeats: int) -> tuple[float, float]:
    best, value = np.inf, 0.0
    for _ in range(repeats):
        started = time.process_time()
        value = call()
        best = min(best, time.process_time() - started)
    return best, value


def main() -> None:
    parser = argparse.ArgumentParser(description="rank counting against named peers")
    parser.add_argument("--users", type=int, default=5000)
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--history", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    data, model = draw(options.users, options.items, options.history)
    print(f"{options.users:,} users x {options.items:,} items, history {options.history}")
    peers = {
        "ours (rank counting)": ours, "numpy argsort": argsort,
        "numpy argsort(argsort)": double_argsort, "torchmetrics retrieval_normalized_dcg":
        torchmetrics,
    }  # fmt: skip
    first: tuple[float, float] | None = None
    for name, call in peers.items():
        call(*draw(20, 50, 5))  # imports are no part of the measurement
        seconds, value = cpu_seconds(lambda call=call: call(data, model), options.repeats)
        first = first or (seconds, value)
        if abs(value - first[1]) > 1e-6:
            raise SystemExit(f"{name} gives NDCG@10 {value:.6f}, ours {first[1]:.6f}")
        print(f"{name:40s} {seconds:8.3f} CPU s  {seconds / first[0]:6.1f}x  NDCG@10 {value:.4f}")


if __name__ == "__main__":
    main()
