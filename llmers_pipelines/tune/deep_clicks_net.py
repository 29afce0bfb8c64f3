"""Upper layers over behaviours. Shapes: B users, L behaviours, E width, K layers, split at k."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.training import IdMap
from ..data.vectors import VectorTable
from ..encode.transformer_net import load_encoder, pool, with_adapter
from .deep_clicks import DeepClicks
from .lora_net import attach, quiet
from .tuner import Base, TuneError

ROWS = 256  # sequences at a time


def upper(model: Any, layer: int) -> Any:
    """Return ``model`` with its layers above ``layer`` alone (-1 = none is left).

    Raises ``TuneError`` for a model whose layers cannot be fed from below.
    """
    if not hasattr(model, "layers") or not hasattr(model, "embed_tokens"):
        raise TuneError(
            f"{type(model).__name__} cannot be split: a decoder with `layers` over token "
            "embeddings is needed (Llama, Qwen, Mistral, ...)"
        )
    total = len(model.layers)
    k = total if layer == -1 else layer
    if not 0 <= k <= total:
        raise TuneError(f"layer {layer} of a model with {total} layers; choose 0 to {total}")
    model.layers = model.layers[k:]
    model.embed_tokens = nn.Identity()  # never read: behaviours come as vectors
    return model


def through(model: Any, behaviours: Tensor, mask: Tensor, how: str) -> Tensor:
    """Return float32 (B, E): pooled states of behaviours (B, L, E), padded on the right.

    Positions count behaviours from 0. Without layers it is the pooling of the behaviours.
    """
    own = getattr(model, "base_model", model)
    if not len(getattr(own, "model", own).layers):
        return pool(behaviours.float(), mask, how)
    out = model(inputs_embeds=behaviours, attention_mask=mask, use_cache=False)
    return pool(out.last_hidden_state.float(), mask, how)


def stacked(rows: Sequence[np.ndarray], device: Any, dtype: Any) -> tuple[Tensor, Tensor]:
    """Return (vectors (B, L, E), mask int64 (B, L)) of sequences float (L_b, E)."""
    width = max(len(r) for r in rows)
    out = torch.zeros(len(rows), width, rows[0].shape[1])
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for n, row in enumerate(rows):
        out[n, : len(row)], mask[n, : len(row)] = torch.from_numpy(np.ascontiguousarray(row)), 1
    return out.to(device, dtype), mask.to(device)


class Clicks(nn.Module):
    """Upper layers and the head of their tuning."""

    def __init__(self, encoder: Any, width: int, seed: int) -> None:
        super().__init__()
        self.encoder = encoder
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.head = nn.Sequential(nn.LayerNorm(3 * width), nn.Linear(3 * width, 1))


class DeepClicksTask:
    """Clicks of users on items."""

    def __init__(
        self, how: DeepClicks, base: Base, examples: Any, vectors: VectorTable | None
    ) -> None:
        quiet()
        if not isinstance(vectors, VectorTable):
            raise TuneError(
                "DeepClicks reads the behaviours' vectors: Tune(DeepClicks(), examples, "
                "context=(Embed(...),))"
            )
        self.how, self.base = how, base
        ids = IdMap(vectors.ids)
        self.table = np.concatenate([np.zeros((1, vectors.dim), np.float32), vectors.vectors])
        known = np.concatenate([[False], vectors.mask])
        columns = (examples[c].to_pylist() for c in ("history", "item_id", "label"))
        self.rows: list[tuple[np.ndarray, int, float]] = []
        for history, item, label in zip(*columns, strict=True):
            places, target = ids.index(history), int(ids.index([item])[0])
            places = places[known[places]]
            if len(places) and known[target]:
                self.rows.append((places, target, float(label)))
        self.left_out = examples.num_rows - len(self.rows)
        self.size = len(self.rows)
        if not self.size:
            raise TuneError("no example has behaviours and an item with a text of their own")
        _, model = load_encoder(base.folder, base.dtype)
        part = upper(model, base.layer)
        if not len(part.layers):
            raise TuneError(
                f"the encoder reads layer {base.layer}, the last one: nothing is left to tune; "
                "name a lower one (`?layer=`)"
            )
        wrapped: Any = attach(part, how.lora, seed=how.seed, causal=False)
        self.module: Any = Clicks(wrapped, vectors.dim, how.seed).to(base.device)
        self.dtype = next(part.parameters()).dtype

    @property
    def facts(self) -> dict[str, Any]:
        return {"examples_used": self.size, "examples_left_out": self.left_out}

    def logits(self, rows: Sequence[tuple[np.ndarray, int, float]]) -> Tensor:
        """Return (B,) of (history, item, label) rows."""
        users, items = (
            through(self.module.encoder, *stacked(part, self.base.device, self.dtype),
                    self.base.pooling)
            for part in ([self.table[h] for h, _, _ in rows],
                         [self.table[[i]] for _, i, _ in rows])
        )  # fmt: skip
        return self.module.head(torch.cat([users, items, users * items], 1)).squeeze(1)

    def backward(self, rows: np.ndarray, epoch: int) -> float:
        """Add the gradients of the mean BCE over ``rows``; return it."""
        picked = [self.rows[r] for r in rows]
        label = torch.tensor([y for _, _, y in picked], device=self.base.device)
        loss = F.binary_cross_entropy_with_logits(self.logits(picked), label)
        loss.backward()
        return float(loss.detach())


def deep_states(base: Base, adapter: Path, sequences: Sequence[np.ndarray]) -> np.ndarray:
    """Return float32 (n, E) of sequences of behaviours under the tuned upper layers."""
    quiet()
    _, model = load_encoder(base.folder, base.dtype)
    tuned = with_adapter(upper(model, base.layer), adapter).to(base.device).eval()
    dtype = next(tuned.parameters()).dtype
    out = np.zeros((len(sequences), sequences[0].shape[1]), np.float32)
    order = np.argsort([len(s) for s in sequences], kind="stable")
    with torch.inference_mode():
        for at in range(0, len(order), ROWS):
            rows = order[at : at + ROWS]
            given = stacked([sequences[r] for r in rows], base.device, dtype)
            out[rows] = through(tuned, *given, base.pooling).cpu().numpy()
    return out
