"""Top items by dot product with a user's vector: exact, or an approximate faiss index.

faiss is optional here: without it the same question is answered exactly by numpy. An approximate
index raises its search effort when it is built until its measured recall reaches the target. What a
user has seen is not asked for, yet it lies nearest and fills the cells that are visited, so recall
is that of the best unseen items, and holds up to the number of seen items that it was measured at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 16_000_000  # scores held at once by the exact search
SCANNED = 200_000  # items; one user's scan of as many vectors of 64 takes about 2 ms
MOST_EFFORT = 2048  # of hnsw; beyond it a scan is as fast
WIDER = 3  # ivf8: how many times k are found by bytes and scored again from the vectors
MANY_SEEN = 0.95  # of users: the effort is chosen for as many seen items; others are scanned
HEAVY = 0.25  # of the measured users, those with the most seen, for whom the recall holds as well
KINDS = ("flat", "hnsw", "ivf", "ivf8")


@dataclass(frozen=True)
class IndexSettings:
    """``flat`` is exact and needs no file; ``ivf`` builds fast; ``ivf8`` builds as fast, reads a
    byte per number and scores the best again exactly; ``hnsw`` builds slowly and needs no cells.
    """

    kind: str = "flat"
    target_recall: float = 0.99  # of the exact top k of what the user has not seen
    k: int = 50  # a request for more, of a user with many seen items, is scanned
    queries: int = 256  # sampled to measure recall
    links: int = 32  # hnsw: neighbours per node
    build_effort: int = 80  # hnsw: efConstruction
    cells: int = 0  # ivf: 0 = about 4 * sqrt(N)
    seed: int = 0
    needed: bool = True  # False: a model that no index can serve gets none instead of an error

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"index kind {self.kind!r}; expected one of {', '.join(KINDS)}")


@dataclass
class ItemIndex:
    """Search over item vectors float32[N + 1, D]; row 0 is padding and is never found."""

    vectors: np.ndarray
    kind: str = "flat"
    effort: int = 0  # efSearch or nprobe; 0 for flat
    recall: float = 1.0  # measured when built
    measured_on: int = 0  # queries
    unit: bool = False  # the vectors were brought to length 1
    most: int = 0  # items, those seen among them, that recall was measured at; 0 is any number
    faiss_index: Any = None

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return scores float32[B, k] and positions int64[B, k] of ``queries`` (B, D), best first.

        Where fewer than k items are found the rest is score -inf and position 0.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.vectors.shape[1]:
            raise ValueError(f"queries {queries.shape}; expected (B, {self.vectors.shape[1]})")
        if self.faiss_index is None:
            return _exact(self.vectors, queries, k)
        if self.kind == "ivf8":
            return self._again(queries, self.faiss_index.search(queries, WIDER * k)[1] + 1, k)
        scores, found = self.faiss_index.search(queries, k)
        return np.where(found < 0, -np.inf, scores), found + 1

    def _again(
        self, queries: np.ndarray, found: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the best ``k`` of ``found`` (B, m) by their own scores; 0 is none."""
        scores = np.matmul(self.vectors[found], queries[:, :, None])[:, :, 0]
        scores[found == 0] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(found, order, 1)

    def describe(self) -> dict[str, Any]:
        """What the bundle's config records about the index."""
        return {"kind": self.kind, "effort": self.effort, "recall": round(self.recall, 4),
                "measured_on": self.measured_on, "unit": self.unit, "most": self.most}  # fmt: skip

    def save(self, path: Path) -> None:
        """Write an approximate index; an exact one is made from the vectors and needs no file."""
        if self.kind != "flat" and self.faiss_index is not None:
            import faiss

            faiss.write_index(_on_cpu(self.faiss_index), str(path))


def suggested_index(n_items: int) -> IndexSettings | None:
    """None while a scan of the catalog takes milliseconds, else an index that builds fast, for
    models that an index can serve."""
    return IndexSettings("ivf8", needed=False) if n_items > SCANNED else None


def build_index(
    vectors: np.ndarray,
    settings: IndexSettings,
    *,
    queries: np.ndarray | None = None,
    seen: Sequence[np.ndarray] | None = None,
    unit: bool = False,
    gpu: bool = False,
) -> ItemIndex:
    """Build an index over ``vectors`` float32[N + 1, D] and measure its recall.

    ``queries`` float32[Q, D] are user vectors to measure on; without them rows of ``vectors`` are
    used. ``seen`` are the positions, each once, that each query's user has seen: recall is measured
    of the best k others. ``unit`` is recorded: the vectors were brought to length 1. ``gpu`` moves
    flat and ivf to the first GPU when faiss sees one. Every kind becomes ``flat``, which is exact,
    without faiss and where the target recall is out of reach.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    faiss = _faiss()
    n, dim = len(vectors) - 1, vectors.shape[1]
    if faiss is None or n < 1:
        return ItemIndex(vectors, unit=unit)
    if settings.kind == "flat":
        return ItemIndex(vectors, unit=unit, faiss_index=_to_gpu(_flat(faiss, vectors), gpu))
    rng = np.random.default_rng(settings.seed)
    if settings.kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, settings.links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = settings.build_effort
        limit = min(n, MOST_EFFORT)
    else:
        limit = min(settings.cells or max(1, int(4 * n**0.5)), max(1, n // 39))
        made_of = (faiss.IndexFlatIP(dim), dim, limit)
        if settings.kind == "ivf8":
            quantizer = faiss.ScalarQuantizer.QT_8bit_uniform
            index = faiss.IndexIVFScalarQuantizer(
                *made_of, quantizer, faiss.METRIC_INNER_PRODUCT, False
            )
        else:
            index = faiss.IndexIVFFlat(*made_of, faiss.METRIC_INNER_PRODUCT)
        # unit centroids: without them a few long ones attract every query of an inner product
        index.cp.spherical = True
        index.cp.seed = settings.seed
        index.train(vectors[1 + rng.permutation(n)[: 64 * limit]])
    index.add(vectors[1:])
    if queries is None:
        queries = vectors[1 + rng.permutation(n)[: settings.queries]]
    made = ItemIndex(vectors, settings.kind, unit=unit, faiss_index=index)
    queries = np.ascontiguousarray(queries[: settings.queries], np.float32)
    _tune(made, queries, None if seen is None else seen[: settings.queries], settings, limit)
    if made.recall < settings.target_recall:
        return build_index(vectors, IndexSettings(), unit=unit, gpu=gpu)
    made.faiss_index = _to_gpu(index, gpu and settings.kind == "ivf")
    return made


def load_index(
    path: Path | None, vectors: np.ndarray, described: dict[str, Any], *, gpu: bool = False
) -> ItemIndex:
    """Read what ``build_index(...).save`` wrote; without faiss or file the search is exact."""
    faiss = _faiss()
    if faiss is None:
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        return ItemIndex(vectors, unit=described["unit"])
    if path is None or described["kind"] == "flat":
        return build_index(vectors, IndexSettings(), unit=described["unit"], gpu=gpu)
    index = faiss.read_index(str(path))
    if index.ntotal != len(vectors) - 1 or index.d != vectors.shape[1]:
        raise ValueError(
            f"{path}: {index.ntotal} vectors of width {index.d}; the item table has "
            f"{len(vectors) - 1} of width {vectors.shape[1]}; write the bundle again"
        )
    set_effort(index, described["kind"], described["effort"])
    index = _to_gpu(index, gpu and described["kind"] == "ivf")
    # an index written before ``most`` was recorded was measured at the settings' k, with none seen
    return ItemIndex(vectors, **{"most": IndexSettings.k, **described}, faiss_index=index)


def measure_recall(
    index: ItemIndex,
    queries: np.ndarray,
    k: int,
    exact: np.ndarray | None = None,
    seen: Sequence[np.ndarray] | None = None,
) -> float:
    """Mean share of the exact top ``k`` of unseen items that the index finds.

    ``exact`` int64[Q, k] where known; ``seen`` as in ``build_index``. The index is asked for
    ``index.most`` items, as a server asks it, and for k and the most that one has seen if that is
    more.
    """
    asked = max(index.most, k + max(map(len, seen), default=0) if seen else k)
    if exact is None:
        exact = unseen(_exact(index.vectors, queries, asked)[1], seen, k)
    found = unseen(index.search(queries, asked)[1], seen, k)
    hit = (found[:, :, None] == exact[:, None, :]) & (exact > 0)[:, None, :]
    return float(hit.any(1).sum() / max(1, (exact > 0).sum()))


def unseen(found: np.ndarray, seen: Sequence[np.ndarray] | None, k: int) -> np.ndarray:
    """Return int64[Q, k]: the first ``k`` of each row of ``found`` that are not seen, then 0."""
    if seen is None:
        return found[:, :k]
    out = np.zeros((len(found), k), np.int64)
    for row, ids, hidden in zip(out, found, seen, strict=True):
        left = ids[~np.isin(ids, hidden)][:k]
        row[: len(left)] = left
    return out


def _tune(
    made: ItemIndex,
    queries: np.ndarray,
    seen: Sequence[np.ndarray] | None,
    settings: IndexSettings,
    limit: int,
) -> None:
    """Find the least search effort whose recall suffices, to an eighth: doubled until it does or
    the limit is reached, then halved in between.

    It has to suffice for all measured users and for those of them who have seen the most.
    """
    groups = [np.arange(len(queries))]
    if seen is not None:
        count = np.array([len(s) for s in seen])
        bound = int(np.quantile(count, MANY_SEEN, method="lower"))
        queries, seen = queries[count <= bound], [s for s in seen if len(s) <= bound]
        order = np.argsort([-len(s) for s in seen], kind="stable")
        groups = [order, order[: max(1, round(HEAVY * len(order)))]]
        made.most = settings.k + bound
    else:
        made.most = settings.k
    exact = unseen(_exact(made.vectors, queries, made.most)[1], seen, settings.k)

    def recall(effort: int) -> float:
        set_effort(made.faiss_index, made.kind, effort)
        return min(
            measure_recall(
                made, queries[g], settings.k, exact[g], seen and [seen[i] for i in g.tolist()]
            )
            for g in groups
        )

    low, high = 0, min(16 if made.kind == "hnsw" else 4, limit)
    reached = recall(high)
    while reached < settings.target_recall and high < limit:
        low, high = high, min(2 * high, limit)
        reached = recall(high)
    while reached >= settings.target_recall and high - low > max(1, high // 8):
        middle = (low + high) // 2
        found = recall(middle)
        if found >= settings.target_recall:
            high, reached = middle, found
        else:
            low = middle
    set_effort(made.faiss_index, made.kind, high)
    made.effort, made.measured_on, made.recall = high, len(queries), reached


def set_effort(index: Any, kind: str, effort: int) -> None:
    """Set efSearch of an ``hnsw`` faiss index, nprobe of the others."""
    if kind == "hnsw":
        index.hnsw.efSearch = effort
    else:
        index.nprobe = effort


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        return None
    return faiss


def _flat(faiss: Any, vectors: np.ndarray) -> Any:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors[1:])
    return index


def _to_gpu(index: Any, wanted: bool) -> Any:
    faiss = _faiss()
    if not wanted or not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
        return index
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)


def _on_cpu(index: Any) -> Any:
    faiss = _faiss()
    return faiss.index_gpu_to_cpu(index) if hasattr(index, "getDevice") else index


def _exact(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact search in blocks of queries, so that B x N scores are never held at once."""
    b, n = len(queries), len(vectors) - 1
    scores = np.full((b, k), -np.inf, np.float32)
    found = np.zeros((b, k), np.int64)
    kept = min(k, n)
    step = max(1, BLOCK // max(1, n))
    for start in range(0, b if kept else 0, step):
        block = queries[start : start + step] @ vectors[1:].T
        top = np.argpartition(-block, kept - 1, axis=1)[:, :kept]
        value = np.take_along_axis(block, top, 1)
        order = np.argsort(-value, axis=1, kind="stable")
        scores[start : start + step, :kept] = np.take_along_axis(value, order, 1)
        found[start : start + step, :kept] = np.take_along_axis(top, order, 1) + 1
    return scores, found
