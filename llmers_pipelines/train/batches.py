"""The batches that loaders make. The types live beside the models that read them."""

from __future__ import annotations

from ..models.batches import CtrBatch, PairBatch, SequenceBatch, left_pad

__all__ = ["CtrBatch", "PairBatch", "SequenceBatch", "left_pad"]
