"""Vectors keyed by entity id, memory-mapped, with a mask of rows that carry knowledge."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .training import IdMap


@dataclass(frozen=True)
class VectorTable:
    """Vectors float32[n, E] of ``entity`` ("item" or "user") with ids and a mask bool[n].

    ``mask`` is False where the row is a fallback (no text, no answer); such rows hold the
    documented fallback vector, never garbage.
    """

    entity: str
    ids: tuple[str, ...]
    vectors: np.ndarray
    mask: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.ids)
        if self.vectors.ndim != 2 or len(self.vectors) != n or self.mask.shape != (n,):
            raise ValueError(
                f"vector table of {self.entity}: {n} ids, vectors {self.vectors.shape}, "
                f"mask {self.mask.shape}; all need the same number of rows"
            )

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def aligned(self, ids: IdMap) -> tuple[np.ndarray, np.ndarray]:
        """Return (float32[n + 1, E], bool[n + 1]) in the order of ``ids``; row 0 is zero.

        An id without a row gets a zero vector and mask False (joined by id, never by position).
        """
        out = np.zeros((len(ids) + 1, self.dim), np.float32)
        mask = np.zeros(len(ids) + 1, bool)
        position = ids.index(self.ids)
        known = position > 0
        out[position[known]] = self.vectors[known]
        mask[position[known]] = self.mask[known]
        return out, mask

    def untold(self, ids: IdMap) -> str:
        """Return why no row tells anything of an id of ``ids``; "" where one does."""
        rows = len(self.ids)
        known = ids.index(self.ids) > 0
        if not known.any():
            return (
                f"none of its {rows} rows is one of the {self.entity}s of the log (for example "
                f"{list(self.ids[:3])} against {list(ids.ids[:3])})"
            )
        if not self.mask[known].any():
            return (
                f"none of its {rows} rows has knowledge: {int(known.sum())} are {self.entity}s of "
                "the log, but no text of theirs was accepted (answers in quarantine, refused or "
                "missing); the columns status and reason of the asset of the texts say why"
            )
        return ""

    def content_hash(self) -> str:
        h = hashlib.sha256(json.dumps([self.entity, self.ids]).encode())
        h.update(np.ascontiguousarray(self.vectors, dtype=np.float32).tobytes())
        h.update(np.ascontiguousarray(self.mask).tobytes())
        return h.hexdigest()[:16]

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "vectors.npy", np.asarray(self.vectors, dtype=np.float32))
        np.save(folder / "mask.npy", self.mask)
        meta = {"entity": self.entity, "ids": self.ids}
        (folder / "ids.json").write_text(json.dumps(meta, ensure_ascii=False))

    @classmethod
    def load(cls, folder: Path) -> VectorTable:
        meta = json.loads((folder / "ids.json").read_text())
        vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
        mask = np.load(folder / "mask.npy", allow_pickle=False)
        return cls(meta["entity"], tuple(meta["ids"]), vectors, mask)
