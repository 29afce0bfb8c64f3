"""Hashed TF-IDF and truncated SVD: vectors without a language model, for machines without one.

The fit (document frequencies and right singular vectors) is kept, so a text has the same vector
whenever it is encoded; only a new ``version`` fits again.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..store.vectors import publish_once
from .encoder import EncoderInfo, Progress

FEATURES = 2**15  # hash buckets of words


class TfidfEncoder:
    """L2-normalized ``V^T tfidf(text)``; a text without a known word is the zero vector."""

    def __init__(
        self, dim: int = 256, *, version: int = 1, state_folder: Path | None = None
    ) -> None:
        self.dim = dim
        self.version = version
        name = f"tfidf__dim{dim}__v{version}.safetensors"
        self.path = state_folder / name if state_folder else None
        self._fit: dict[str, np.ndarray] | None = None

    @property
    def info(self) -> EncoderInfo:
        fit = self._fitted()
        h = hashlib.sha256()
        for name in sorted(fit):
            h.update(np.ascontiguousarray(fit[name]).tobytes())
        return EncoderInfo(
            kind="tfidf", name="tfidf", weights_sha256=h.hexdigest(), tokenizer_sha256="",
            dim=self.dim, pooling=f"hashed{FEATURES}", language_model=False,
        )  # fmt: skip

    def prepare(self, texts: Sequence[str]) -> None:
        """Fit on ``texts`` unless a fit is there already."""
        if self._fit is None and self.path is not None and self.path.is_file():
            self._fitted()
        if self._fit is not None:
            return
        counts = _counts(texts)
        n = max(1, counts.shape[0])
        seen = np.asarray((counts > 0).sum(0)).ravel()
        idf = (np.log((1 + n) / (1 + seen)) + 1).astype(np.float32)
        self._fit = {"idf": idf, "components": _singular(_weighted(counts, idf), self.dim)}
        if self.path is not None:
            from safetensors.numpy import save

            publish_once(self.path, save(self._fit))
            self._fit = None  # another process may have been first: the file decides
            self._fitted()

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        fit = self._fitted()
        vectors = _weighted(_counts(texts), fit["idf"]) @ fit["components"].T
        norm = np.linalg.norm(vectors, axis=1, keepdims=True)
        # A norm at rounding level is a text outside the kept subspace: no direction to trust.
        out = np.where(norm > 1e-6, vectors / np.maximum(norm, 1e-6), 0.0).astype(np.float32)
        if progress is not None:
            progress(len(texts))
        return out

    def _fitted(self) -> dict[str, np.ndarray]:
        if self._fit is None and self.path is not None and self.path.is_file():
            from safetensors.numpy import load_file

            self._fit = load_file(self.path)
        if self._fit is None:
            raise ValueError("the tfidf encoder has no fit yet: call prepare(texts) first")
        return self._fit


def _counts(texts: Sequence[str]) -> Any:
    """Return csr float32[n, FEATURES]: 1 + ln(count) of each hashed word."""
    from scipy.sparse import csr_array

    told = [re.findall(r"\w\w+", t.lower()) for t in texts]
    words = dict.fromkeys(w for t in told for w in t)
    bucket = {w: zlib.crc32(w.encode("utf-8", "surrogatepass")) % FEATURES for w in words}
    rows = np.repeat(np.arange(len(told)), [len(t) for t in told])
    columns = np.array([bucket[w] for t in told for w in t], np.int64)
    counts = csr_array(
        (np.ones(len(columns), np.float32), (rows, columns)), shape=(len(told), FEATURES)
    )
    counts.sum_duplicates()
    counts.data = 1 + np.log(counts.data)
    return counts


def _weighted(counts: Any, idf: np.ndarray) -> Any:
    """Return rows of ``counts * idf`` with L2 norm 1 (zero rows stay zero)."""
    from scipy.sparse import diags_array

    weighted = (counts @ diags_array(idf)).tocsr()
    norm = np.sqrt(np.asarray(weighted.multiply(weighted).sum(1)).ravel())
    return diags_array(1 / np.maximum(norm, 1e-12)) @ weighted


def _singular(matrix: Any, dim: int) -> np.ndarray:
    """Return float32[dim, FEATURES]: right singular vectors, the largest loading positive.

    Where the texts span fewer directions than ``dim`` the rest are zero rows.
    """
    out = np.zeros((dim, matrix.shape[1]), np.float32)
    used = np.flatnonzero(np.asarray(abs(matrix).sum(0)).ravel())
    small = matrix[:, used].astype(np.float64)
    if not min(small.shape):
        return out
    if min(small.shape) <= dim + 1:
        _, s, vt = np.linalg.svd(small.toarray(), full_matrices=False)
    else:
        s, vt = _leading(small, dim)
    vt = vt[s > 1e-6 * s[0]][:dim]
    sign = np.sign(vt[np.arange(len(vt)), np.abs(vt).argmax(1)])
    out[: len(vt), used] = vt * sign[:, None]
    return out


def _leading(matrix: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the ``k`` largest singular values and their right vectors, by ARPACK.

    The same matrix gives the same bytes: where the texts span fewer than ``k`` directions the
    iteration has to start anew from a random vector, so both starts are fixed.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    side = tall.shape[1]
    operator = cast(Any, LinearOperator)
    gram = operator((side, side), matvec=lambda x: tall.T @ (tall @ x), dtype=np.float64)
    seeded = {"rng": 0} if "rng" in signature(eigsh).parameters else {}
    _, basis = cast(Any, eigsh)(gram, k=k, v0=np.ones(side), **seeded)
    basis, _ = np.linalg.qr(basis)
    left, s, right = np.linalg.svd(tall @ basis, full_matrices=False)
    return s, right @ basis.T if tall is matrix else left.T
