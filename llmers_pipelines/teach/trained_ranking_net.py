"""The best items of a trained network at many positions, in blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..models.ranking_net import CACHE_FLOATS, STATE_ROWS, device_of, kept, scoring_batch
from .teacher import prefixes

if TYPE_CHECKING:
    from ..data.training import TrainingData


def ranked(
    model: Any, data: TrainingData, user: np.ndarray, position: np.ndarray, k: int, *,
    temperature: float = 1.0, seen: bool = False,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return (item int64[P, k], distance float32[P, k]), best first.

    Position p of user u is scored from the first p known items. Where fewer than k items are left
    to rank the rest is 0. Equal scores come in no particular order.
    """
    items = np.zeros((len(user), k), np.int64)
    distances = np.zeros((len(user), k), np.float32)
    histories = prefixes(data, user, position)
    order = np.argsort(position, kind="stable")  # similar lengths together
    step = max(1, CACHE_FLOATS // (data.n_items + 1))
    width = min(k, data.n_items)
    with kept(model):
        device, max_len = device_of(model), getattr(model, "max_len", None)
        for start in range(0, len(order), STATE_ROWS):
            block = order[start : start + STATE_ROWS]
            lists = [histories[i] for i in block]
            states = model.user_state(scoring_batch(user[block], lists, max_len, device))
            for at in range(0, len(block), step):
                scores = model.score(states[at : at + step]).float() / temperature
                scores[:, 0] = -torch.inf
                if not seen:
                    for row, history in enumerate(lists[at : at + step]):
                        scores[row, torch.from_numpy(history).to(device)] = -torch.inf
                least, index = (-scores.log_softmax(1)).topk(width, 1, largest=False)
                least, index = least.cpu().numpy(), index.cpu().numpy()
                real = np.isfinite(least)
                rows = block[at : at + step]
                items[rows, :width] = np.where(real, index, 0)
                distances[rows, :width] = np.where(real, np.maximum(least, 0), 0)
    return items, distances
