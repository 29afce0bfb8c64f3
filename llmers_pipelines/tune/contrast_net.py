"""Contrastive tuning at work. Shapes: B examples, L tokens, E width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..encode.transformer_net import load_encoder, padded, pool, token_ids
from ..models.contrast_net import info_nce, soft_target
from .contrast import Contrast
from .lora_net import attach, quiet
from .tuner import Base, TuneError

LOSS = {"info_nce": info_nce, "soft_target": soft_target}
LEAST_TAU = 0.01  # a learned temperature stays above it, or the scores overflow


class Tempered(nn.Module):
    """An encoder and its temperature."""

    def __init__(self, encoder: Any, how: Contrast) -> None:
        super().__init__()
        self.encoder = encoder
        self.tau = nn.Parameter(torch.tensor(how.tau), requires_grad=how.learn_tau)


class ContrastTask:
    """Pairs of views under an encoder with an adapter."""

    def __init__(self, how: Contrast, base: Base, examples: Any) -> None:
        quiet()
        self.how, self.base = how, base
        self.first, self.second = (examples[c].to_pylist() for c in ("first", "second"))
        names = examples["example_id"].to_pylist()
        for name, a, b in zip(names, self.first, self.second, strict=True):
            if not a or len(a) != len(b):
                raise TuneError(f"example {name!r}: {len(a)} first and {len(b)} second views")
        self.size = len(names)
        if self.size < 2:
            raise TuneError(f"{self.size} examples: a contrast needs at least two")
        self.tokenizer, model = load_encoder(base.folder, base.dtype)
        wrapped: Any = attach(model, how.lora, seed=how.seed, causal=False)
        self.module: Any = Tempered(wrapped, how).to(base.device)

    @property
    def facts(self) -> dict[str, Any]:
        return {"tau": float(self.module.tau.detach())}

    def backward(self, rows: np.ndarray, epoch: int) -> float:
        """Add the gradients of the loss over ``rows``; return it. A single row says nothing."""
        if len(rows) < 2:
            return 0.0
        views = [self.vectors([side[r][epoch % len(side[r])] for r in rows])
                 for side in (self.first, self.second)]  # fmt: skip
        tau = self.module.tau.clamp(min=LEAST_TAU)
        loss = LOSS[self.how.loss](views[0], views[1], tau)
        loss.backward()
        return float(loss.detach())

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """Return float32 (B, E): pooled states of the last layer, as the encoder gives them."""
        limit = min(self.base.max_length, self.how.max_tokens)
        rows = token_ids(self.tokenizer, [self.base.prefix + t for t in texts], limit)
        ids, mask = padded(rows, self.tokenizer.pad_token_id or 0, self.base.device)
        out = self.module.encoder(input_ids=ids, attention_mask=mask)
        return pool(out.last_hidden_state.float(), mask, self.base.pooling)
