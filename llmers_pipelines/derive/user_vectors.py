"""User vectors of a trained recommender, as an asset that other methods may read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.training import TRAIN
from ..data.vectors import VectorTable
from .candidates import BLOCK, PastModel
from .derivation import Derivation, Given


@dataclass(frozen=True)
class UserVectors(Derivation):
    """The vectors with which a trained recommender scores users after their training rows.

    Sources: the model and the splits that it was trained on. A user without a training row has mask
    False and a vector of zeros.
    """

    def make(self, given: Given) -> tuple[VectorTable, dict[str, Any]]:
        model = next((s for s in given.sources if isinstance(s, PastModel)), None)
        if model is None or model.states is None:
            raise ValueError(
                "UserVectors needs a trained model with user vectors: "
                "Derive(UserVectors(), Train(...), splits(...))"
            )
        data = model.log
        keep = data.split == TRAIN
        start = np.searchsorted(data.user[keep], np.arange(data.n_users + 2))
        item, known = data.item[keep], np.flatnonzero(np.diff(start))
        parts = [
            model.states(block, [item[start[u] : start[u + 1]] for u in block])
            for block in np.split(known, range(BLOCK, len(known), BLOCK)) if len(block)
        ]  # fmt: skip
        width = parts[0].shape[1] if parts else 1
        vectors = np.zeros((data.n_users, width), np.float32)
        mask = np.zeros(data.n_users, bool)
        if parts:
            vectors[known - 1] = np.concatenate(parts)
            mask[known - 1] = True
        return VectorTable("user", data.users.ids, vectors, mask), {
            "users": int(mask.sum()), "width": width,
        }  # fmt: skip
