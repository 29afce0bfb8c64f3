"""Encoding, vector store and neighbour search: rates per CPU-second, beside naive ways and a peer.

``python benchmarks/encode.py [--texts 96] [--items 20000]``; one thread, minimum over repeats.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.derive.neighbours import NearestNeighbours
from llmers_pipelines.derive.pca import PCA
from llmers_pipelines.encode.encoder import Encoder, make_encoder, minilm_folder
from llmers_pipelines.store.vectors import VectorStore, text_keys

WORDS = (
    "silent", "river", "journey", "black", "leather", "office", "stapler", "comedy", "of", "a",
    "family", "in", "wartime", "portable", "digital", "calculator", "night", "garden", "detective",
    "and", "the", "last", "kingdom", "stainless", "kitchen", "set", "classic",
)  # fmt: skip


def cpu_seconds(job: Callable[[], object], repeats: int = 2) -> float:
    """Return the least process CPU time of ``job``."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        job()
        best = min(best, time.process_time() - start)
    return best


def sentences(n: int, words: tuple[int, int], seed: int) -> list[str]:
    """Return ``n`` texts of ``words[0]`` to ``words[1]`` words, of mixed lengths."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(*words))) for _ in range(n)]


def report(name: str, rate: float, unit: str, base: float | None = None) -> None:
    ratio = f"  x{rate / base:.2f}" if base else ""
    print(f"{name:<52}{rate:>12,.0f} {unit}{ratio}")


def encoders(n: int) -> None:
    """MiniLM on short and long texts: batching, token budgets, the peer library."""
    kinds = {"short": sentences(n, (3, 20), 0), "long": sentences(n // 3, (30, 160), 1)}
    for kind, texts in kinds.items():
        minilm = make_encoder("minilm")
        minilm.encode(texts[:2])
        one = len(texts) / cpu_seconds(lambda: [minilm.encode([t]) for t in texts])  # noqa: B023
        report(f"{kind}: one text at a time", one, "texts/CPU-s")
        for budget in (128, 256, 512, 1024, 4096):
            minilm.token_budget = budget
            rate = len(texts) / cpu_seconds(lambda: minilm.encode(texts))  # noqa: B023
            report(f"{kind}: sorted, {budget} tokens a batch", rate, "texts/CPU-s", one)
        peer = sentence_transformers_model()
        if peer is not None:
            rate = len(texts) / cpu_seconds(
                lambda: peer.encode(texts, batch_size=32, show_progress_bar=False)  # noqa: B023
            )
            report(f"{kind}: sentence-transformers, batch 32", rate, "texts/CPU-s", one)
    tfidf = make_encoder("tfidf")
    texts = sentences(5000, (3, 20), 2)
    fit = cpu_seconds(lambda: make_encoder("tfidf?dim=64").prepare(texts), 1)
    report("tfidf: fit, 64 columns", len(texts) / fit, "texts/CPU-s")
    tfidf.prepare(texts)
    report("tfidf: encode", len(texts) / cpu_seconds(lambda: tfidf.encode(texts)), "texts/CPU-s")


def sentence_transformers_model() -> Encoder | None:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        print("sentence-transformers is not installed: no peer")
        return None
    return SentenceTransformer(str(minilm_folder()), device="cpu")


def store(n: int) -> None:
    """Vector store: keys, append, lookup from disk, against one file per vector."""
    texts = [f"text number {k}" for k in range(n)]
    vectors = np.random.default_rng(0).normal(size=(n, 384)).astype(np.float32)
    keys = text_keys("bench", texts)
    report("store: keys", n / cpu_seconds(lambda: text_keys("bench", texts)), "rows/CPU-s")
    with tempfile.TemporaryDirectory() as folder:
        space = VectorStore(Path(folder)).space("bench", 384)
        start = time.process_time()
        for part in np.array_split(np.arange(n), 20):
            space.append(keys[part], vectors[part])
        report("store: append, 20 segments", n / (time.process_time() - start), "rows/CPU-s")
        order = np.random.default_rng(1).permutation(n)
        root = Path(folder)
        fresh = cpu_seconds(lambda: VectorStore(root).space("bench", 384).lookup(keys[order]))
        report("store: lookup after opening, random order", n / fresh, "rows/CPU-s")
        naive = Path(folder) / "naive"
        naive.mkdir()
        few = 2000
        for k in range(few):
            np.save(naive / f"{k}.npy", vectors[k])
        one = cpu_seconds(lambda: [np.load(naive / f"{k}.npy") for k in range(few)])
        report("one file per vector: read", few / one, "rows/CPU-s")


def derive(items: int) -> None:
    """PCA and exact neighbours of ``items`` vectors of width 384."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(200, 384))
    vectors = centres[rng.integers(0, 200, items)] + rng.normal(size=(items, 384))
    ids = tuple(map(str, range(items)))
    table = VectorTable("item", ids, vectors.astype(np.float32), np.ones(items, bool))
    rate = items / cpu_seconds(lambda: PCA(dim=64).apply([table]), 1)
    report("PCA to 64: fit and project", rate, "rows/CPU-s")
    exact = items / cpu_seconds(lambda: NearestNeighbours(k=10).apply([table]), 1)
    report("10 neighbours, exact", exact, "rows/CPU-s")
    info: dict[str, object] = {}

    def inverted() -> None:
        info.update(NearestNeighbours(k=10, exact_below=0).apply([table])[1])

    rate = items / cpu_seconds(inverted, 1)
    report(f"10 neighbours, inverted file, recall {info['recall']:.3f}", rate, "rows/CPU-s", exact)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=96)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("parts", nargs="*", default=["encoders", "store", "derive"])
    chosen = parser.parse_args()
    if "torch" not in sys.modules:
        import torch

        torch.set_num_threads(1)
    for part in chosen.parts:
        jobs = {"encoders": lambda: encoders(chosen.texts), "store": lambda: store(chosen.items),
                "derive": lambda: derive(chosen.items)}  # fmt: skip
        jobs[part]()


if __name__ == "__main__":
    main()
