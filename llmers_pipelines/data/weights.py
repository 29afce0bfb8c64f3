"""Weights of a network as an artifact: named arrays in a safetensors file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class NamedWeights:
    """Arrays float32 by the names that they have in their network."""

    arrays: Mapping[str, np.ndarray]

    def content_hash(self) -> str:
        h = hashlib.sha256()
        for name in sorted(self.arrays):
            array = np.ascontiguousarray(self.arrays[name])
            h.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
        return h.hexdigest()[:16]

    @classmethod
    def load(cls, file: Path) -> NamedWeights:
        from safetensors.numpy import load_file

        return cls(load_file(file))


def dealt_weights(weights: NamedWeights, rng: np.random.Generator) -> NamedWeights:
    """Return the weights with the rows of each id table dealt to other ids (row 0 is padding)."""
    out = dict(weights.arrays)
    for name in sorted(n for n in out if n.endswith(".table.weight")):
        order = 1 + rng.permutation(len(out[name]) - 1)
        out[name] = np.concatenate([out[name][:1], out[name][order]])
    return NamedWeights(out)


def drawn_weights(weights: NamedWeights, rng: np.random.Generator) -> NamedWeights:
    """Return normal draws with each array's mean and deviation; padding and statistics stay."""
    out = {}
    for name in sorted(weights.arrays):
        array = weights.arrays[name]
        drawn = rng.normal(array.mean(dtype=np.float64), array.std(dtype=np.float64), array.shape)
        out[name] = array if ".running_" in name else drawn.astype(np.float32)
        if name.endswith(".table.weight"):
            out[name][0] = array[0]
    return NamedWeights(out)
