"""Item vectors of a trained recommender, as an asset that other methods may read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.vectors import VectorTable
from .candidates import PastModel
from .derivation import Derivation, Given


@dataclass(frozen=True)
class ItemVectors(Derivation):
    """The vectors by which a trained recommender scores items as targets.

    Sources: the model and the splits that it was trained on. An item without a training row has
    mask False: its vector is what training left of a random start.
    """

    def make(self, given: Given) -> tuple[VectorTable, dict[str, Any]]:
        model = next((s for s in given.sources if isinstance(s, PastModel)), None)
        if model is None or model.item_vectors is None:
            raise ValueError(
                "ItemVectors needs a trained model with item vectors: "
                "Derive(ItemVectors(), Train(...), splits(...))"
            )
        data = model.log
        vectors = np.array(model.item_vectors()[1:], np.float32)
        trained = data.train_counts[1:] > 0
        return VectorTable("item", data.items.ids, vectors, trained), {
            "trained_items": int(trained.sum()), "width": int(vectors.shape[1]),
        }  # fmt: skip
