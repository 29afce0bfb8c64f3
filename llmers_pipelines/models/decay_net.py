"""How much a history's older items count."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..data.training import VALID
from .ranking_net import ndcg, rank_targets

DECAYS = ("mean", "linear", "harmonic", "last")
VALIDATED = "validated"  # the better of CANDIDATES on validation
CANDIDATES = ("harmonic", "mean")  # logs split by time, logs split at random


def known_decay(decay: str) -> str:
    """Return ``decay``; ValueError where it names none."""
    if decay != VALIDATED:
        decay_weights(decay, 1)
    return decay


def settle_decay(net: Any, data: Any) -> None:
    """Where ``net.config["decay"]`` is "validated", put the better of CANDIDATES in its place.

    Better: NDCG@10 on validation; the first of equal ones, and where there is no validation. Newer
    items tell more about the next one, but nothing about a target that was drawn at random.
    """
    if net.config["decay"] != VALIDATED:
        return
    found = []
    for decay in CANDIDATES:
        net.config["decay"] = decay
        found.append(ndcg(rank_targets(net, data, VALID)))
    net.config["decay"] = CANDIDATES[1] if found[1] > found[0] else CANDIDATES[0]


def decay_weights(decay: str, length: int) -> Tensor:
    """Return float32 (L,), oldest first; a = 1 for the newest.

    "mean" 1; "linear" max(1e-5, 1 - 0.1 (a - 1)); "harmonic" 1 / a; "last" 1 for the newest alone.
    """
    age = torch.arange(length, 0, -1, dtype=torch.float32)
    match decay:
        case "mean":
            return torch.ones(length)
        case "linear":
            return (1 - 0.1 * (age - 1)).clamp(min=1e-5)
        case "harmonic":
            return 1 / age
        case "last":
            return (age == 1).float()
    raise ValueError(f"unknown decay {decay!r}: use one of {(*DECAYS, VALIDATED)}")


def weighted_hot(items: Tensor, n_items: int, decay: str) -> Tensor:
    """Return (B, N + 1): each item's weight in its history (B, L), 0 for items not in it.

    An item that occurs more than once has its largest weight; padding (0) has none.
    """
    weight = decay_weights(decay, items.shape[1]).to(items.device).expand(items.shape)
    out = torch.zeros(len(items), n_items + 1, device=items.device)
    out.scatter_reduce_(1, items, weight, "amax")
    out[:, 0] = 0
    return out
