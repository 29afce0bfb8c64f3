"""Vectors of texts: hidden states of one layer, pooled over the real tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

POOLINGS = ("mean", "last", "cls")


@torch.inference_mode()
def hidden_states(
    model: Any, batch: Sequence[Sequence[int]], *, pooling: str, layer: int, pad: int
) -> np.ndarray:
    """Return float32 (B, E) of token lists; ``layer`` 0 = input embeddings, -1 = last.

    Right padding: a causal model then never sees a pad before a real token.
    """
    width = max(map(len, batch))
    ids = torch.full((len(batch), width), pad, dtype=torch.long, device=model.device)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(list(tokens), device=model.device)
        mask[row, : len(tokens)] = 1
    out = model(ids, attention_mask=mask, output_hidden_states=True, logits_to_keep=1)
    return pool(out.hidden_states[layer].float(), mask, pooling).cpu().numpy()


def pool(states: torch.Tensor, mask: torch.Tensor, how: str) -> torch.Tensor:
    """Return (B, E) of states (B, L, E) and a mask (B, L) of real tokens, padded on the right."""
    match how:
        case "mean":
            weight = mask.to(states.dtype).unsqueeze(-1)
            return (states * weight).sum(1) / weight.sum(1).clamp(min=1)
        case "last":
            last = mask.sum(1).clamp(min=1) - 1
            return states[torch.arange(len(states), device=states.device), last]
        case "cls":
            return states[:, 0]
    raise ValueError(f"pooling {how!r}; expected one of {', '.join(POOLINGS)}")
