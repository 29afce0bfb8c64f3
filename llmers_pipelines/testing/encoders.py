"""A fast encoder for tests: texts that share words get similar vectors. No language model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from ..encode.encoder import EncoderInfo, Progress


class HashingEncoder:
    """L2-normalized sum of one fixed random direction per word; no word gives the zero vector.

    In the configuration: ``llmers_pipelines.testing.encoders:HashingEncoder?dim=32``. ``calls``
    counts the texts that were encoded.
    """

    def __init__(self, dim: int = 64) -> None:
        self.dim = dim
        self.calls = 0
        self._words: dict[str, np.ndarray] = {}

    @property
    def info(self) -> EncoderInfo:
        return EncoderInfo(
            kind="hashing", name=f"hashing{self.dim}", weights_sha256="", tokenizer_sha256="",
            dim=self.dim, pooling="sum of words", language_model=False,
        )  # fmt: skip

    def prepare(self, texts: Sequence[str]) -> None:
        """Nothing to fit."""

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        out = np.zeros((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                out[row] += self._direction(word)
            norm = np.linalg.norm(out[row])
            out[row] /= norm if norm > 0 else 1.0
        self.calls += len(texts)
        if progress is not None:
            progress(len(texts))
        return out

    def _direction(self, word: str) -> np.ndarray:
        """Return signs -1/+1 float32[dim] that depend on the word alone."""
        known = self._words.get(word)
        if known is None:
            bits = hashlib.shake_256(word.encode("utf-8", "surrogatepass")).digest(self.dim)
            known = np.where(np.frombuffer(bits, np.uint8) < 128, -1, 1).astype(np.float32)
            self._words[word] = known
        return known
