"""The network of the dual view. Shapes: B batch, L length, N items, D width, E text width."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.dropout_net import dropout

if TYPE_CHECKING:
    pass


class CrossAttention(nn.Module):
    """Queries from one view, keys and values from the other; causal, padding masked."""

    def __init__(self, dim: int, heads: int, p: float) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} is not a multiple of {heads} cross-attention heads")
        self.heads, self.p = heads, p
        self.query, self.key_value = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, other: Tensor, allowed: Tensor) -> Tensor:
        b, length, d = x.shape
        q = self.query(x).view(b, length, self.heads, -1).transpose(1, 2)
        kv = self.key_value(other).view(b, length, 2, self.heads, -1)
        k, v = kv.permute(2, 0, 3, 1, 4)
        weight = (q @ k.transpose(-1, -2)) * (d // self.heads) ** -0.5
        weight = weight.masked_fill(~allowed, -torch.inf).softmax(-1)
        mixed = dropout(weight, self.p, self.training) @ v
        return self.out(mixed.transpose(1, 2).reshape(b, length, d))


class DualViewHook(nn.Module):
    """Two views of each item; ``served`` holds the folded semantic table instead of vectors."""

    def __init__(
        self, *, n_items: int, dim: int, width: int, hidden: int, heads: int, dropout: float,
        residual: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.residual = residual
        self.sizes = {"n_items": n_items, "dim": dim, "heads": heads, "dropout": dropout,
                      "residual": residual}  # fmt: skip
        self.register_buffer("vectors", torch.zeros(n_items + 1, width), persistent=False)
        self.down1 = nn.Linear(width, hidden)
        self.down2 = nn.Linear(hidden, dim)
        self.id_from_text = CrossAttention(dim, heads, dropout)
        self.text_from_id = CrossAttention(dim, heads, dropout)

    def start_at(self, std: float) -> None:
        """Scale A2 so that the adapted vectors start with standard deviation ``std``."""
        with torch.no_grad():
            self.down1.bias.zero_()
            self.down2.bias.zero_()
            found = float(self.semantic(None)[1:].std())
            if found > 0:
                self.down2.weight.mul_(std / found)

    def semantic(self, ids: Tensor | None) -> Tensor:
        """Return ``A2 (A1 z_i)``: (N + 1, D) for all items or (..., D) for ``ids``."""
        vectors = self.vectors if ids is None else self.vectors[ids]
        # two linear maps in a row are one: cheaper over the catalog than one after the other
        weight = self.down2.weight @ self.down1.weight
        return F.linear(vectors, weight, self.down2(self.down1.bias))

    def item_output(self, model: Any, nxt: Any, ids: Tensor | None) -> Tensor:
        return torch.cat([nxt(ids), self.semantic(ids)], -1)

    def hidden_states(self, model: Any, nxt: Any, batch: Any) -> Tensor:
        """Return (B, L, 2 D)."""
        own_stream = self.stream() if self.training else nullcontext()
        text = self.semantic(batch.items)
        return two_views(self, model, batch, text, own_stream)

    def fold(self, model: Any) -> ServedDualView:
        served = ServedDualView(**self.sizes).to(self.vectors.device)
        served.text.copy_(self.semantic(None))
        served.id_from_text.load_state_dict(self.id_from_text.state_dict())
        served.text_from_id.load_state_dict(self.text_from_id.state_dict())
        return served


class ServedDualView(nn.Module):
    """The dual view with ``A2 A1 z`` as a plain table; item outputs are in the model's table."""

    def __init__(
        self, *, n_items: int, dim: int, heads: int, dropout: float, residual: bool = False
    ) -> None:
        super().__init__()
        self.residual = residual
        self.config = {"n_items": n_items, "dim": dim, "heads": heads, "dropout": dropout,
                       "residual": residual}  # fmt: skip
        self.register_buffer("text", torch.zeros(n_items + 1, dim))
        self.id_from_text = CrossAttention(dim, heads, dropout)
        self.text_from_id = CrossAttention(dim, heads, dropout)

    def hidden_states(self, model: Any, nxt: Any, batch: Any) -> Tensor:
        return two_views(self, model, batch, self.text[batch.items], nullcontext())


def two_views(hook: Any, model: Any, batch: Any, text: Tensor, own_stream: Any) -> Tensor:
    """Return the states (B, L, 2 D) of the id view and the text view (B, L, D)."""
    mask = batch.items > 0
    length = mask.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    eye = torch.eye(length, dtype=torch.bool, device=mask.device)  # a padding row needs one key
    allowed = ((mask[:, None, :] & causal) | eye)[:, None]
    ids = model.item_input(batch.items)
    with own_stream:
        first = hook.id_from_text(ids, text, allowed)
        second = hook.text_from_id(text, ids, allowed)
    if hook.residual:
        first, second = ids + first, text + second
    return torch.cat([model.encode(first, mask), model.encode(second, mask)], -1)
