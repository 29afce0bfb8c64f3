"""Pieces of news recommenders: words to a news vector, clicked news to a user (torch).

B rows, L history, n news, T words, E width of a word, D width of a news vector.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .ctr_net import Distinct
from .dropout_net import dropout
from .hooks_net import extra_losses
from .seams import through


class AdditiveAttention(nn.Module):
    """``sum_t a_t h_t`` with ``a = softmax(q . tanh(V h_t + v))`` over the real positions."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, inner)
        self.query = nn.Linear(inner, 1, bias=False)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        """Return (B, W) of h (B, L, W), mask (B, L); zero where no position is real."""
        scores = self.query(torch.tanh(self.project(h))).squeeze(2)
        return pooled(scores, h, mask)


def pooled(scores: Tensor, h: Tensor, mask: Tensor) -> Tensor:
    """Return softmax(scores)-weighted sums of h (B, L, W) over ``mask`` (B, L); zero where none."""
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, 1) * mask
    return torch.bmm(weights.unsqueeze(1), h).squeeze(1)


class SelfAttention(nn.Module):
    """Multi-head self-attention in which padding is not attended to; heads * head wide."""

    def __init__(self, width: int, heads: int, head: int) -> None:
        super().__init__()
        self.heads = heads
        self.projections = nn.Linear(width, 3 * heads * head)
        nn.init.xavier_uniform_(self.projections.weight)
        nn.init.zeros_(self.projections.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (B, L, heads * head) of x (B, L, W), mask (B, L)."""
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.projections(x).chunk(3, dim=2)
        )
        real = mask | ~mask.any(1, keepdim=True)  # a row of padding alone attends to itself
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=real[:, None, None, :])
        return out.transpose(1, 2).flatten(2)


class NewsNet(nn.Module):
    """``s = <u, r_c>``: u from the vectors r of clicked news. Subclasses give ``news``, ``user``.

    ``shape``: n_items, liked_from and what the encoder reads. ``folded`` > 0: the vectors of all
    news are plain tables of that width and there is no encoder.
    """

    title: ClassVar[str] = ""

    def __init__(
        self, shape: Mapping[str, Any], max_len: int, dropout: float, folded: int = 0, **own: Any
    ) -> None:
        super().__init__()
        self.config = {
            "shape": dict(shape), "max_len": max_len, "dropout": dropout, "folded": folded,
            **{k: list(v) if isinstance(v, tuple) else v for k, v in own.items()},
        }  # fmt: skip
        self.hooks = nn.ModuleList()
        self.max_len, self.p = max_len, dropout
        self.n_items, self.liked_from = shape["n_items"], float(shape["liked_from"])
        width = self.make(encoder=not folded, **own)
        if folded:
            self.register_buffer("read", torch.zeros(self.n_items + 1, width))
            self.register_buffer("shown", torch.zeros(self.n_items + 1, width))
        self.width = width

    def make(self, *, encoder: bool, **own: Any) -> int:
        """Make the user encoder and, with ``encoder``, that of news; return D."""
        raise NotImplementedError

    def news(self, ids: Tensor) -> Tensor:
        """Return news vectors (n, D) of the positions ``ids`` (n,)."""
        raise NotImplementedError

    def user(self, clicked: Tensor, mask: Tensor) -> Tensor:
        """Return (B, D) of clicked news vectors (B, L, D), mask (B, L)."""
        raise NotImplementedError

    def item_input(self, ids: Tensor) -> Tensor:
        return through(self, "item_input", ids)

    def _item_input(self, ids: Tensor) -> Tensor:
        return self.read[ids] if self.config["folded"] else self.news(ids)

    def item_output(self, ids: Tensor) -> Tensor:
        return through(self, "item_output", ids)

    def _item_output(self, ids: Tensor) -> Tensor:
        return self.shown[ids] if self.config["folded"] else self.news(ids)

    def user_state(self, batch: Any) -> Tensor:
        """Return u (B, D); the zero vector where nothing was clicked."""
        return through(self, "user_state", batch)

    def _user_state(self, batch: Any) -> Tensor:
        mask = batch.history > 0
        if batch.history_rating is not None:
            mask = mask & (batch.history_rating >= self.liked_from)
        return self._of_history(batch.history, mask)

    def _of_history(self, history: Tensor, mask: Tensor) -> Tensor:
        items = Distinct(self.n_items + 1, history)  # each news is encoded once
        vectors = self.item_input(items.ids)[items.place(history)]
        return self.user(vectors, mask) * mask.any(1, keepdim=True)

    def score(self, state: Tensor, ids: Tensor) -> Tensor:
        """Return (B, C) of states (B, D) and candidates (B, C)."""
        return through(self, "score", state, ids)

    def _score(self, state: Tensor, ids: Tensor) -> Tensor:
        items = Distinct(self.n_items + 1, ids)
        vectors = self.item_output(items.ids)[items.place(ids)]
        return torch.bmm(vectors, state.unsqueeze(2)).squeeze(2)

    def logits(self, batch: Any) -> Tensor:
        """Return (B,) scores of the items of a ``CtrBatch``; they rank, and are not calibrated."""
        return self.score(self.user_state(batch), batch.item.unsqueeze(1)).squeeze(1)

    def loss(self, batch: Any) -> Tensor:
        """Return the cross-entropy of the clicked news among its candidates (``NewsBatch``)."""
        state = self.user_state(batch)
        scores = self.score(state, batch.candidates).float()  # autocast gives bfloat16
        loss = (torch.logsumexp(scores, 1) - scores[:, 0]).mean()
        return loss + extra_losses(self, batch, state)

    def folded(self) -> NewsNet:
        """Return a net in which the vectors of all news are tables, without the news encoder."""
        with torch.no_grad():
            ids = torch.arange(self.n_items + 1, device=next(self.parameters()).device)
            parts = ids.split(1024)
            read, shown = (
                torch.cat([vectors(part) for part in parts])
                for vectors in (self.item_input, self.item_output)
            )
        net = type(self)(**copy.deepcopy(self.config) | {"folded": self.width})
        own = net.state_dict()
        mine = {k: v for k, v in self.state_dict().items() if k in own}
        net.load_state_dict(mine | {"read": read, "shown": shown})
        return net.to(ids.device)

    def dropped(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)


class Words(nn.Module):
    """A table of words and the words of all items, int64 (N + 1, T)."""

    def __init__(self, n_items: int, size: Sequence[int], width: int) -> None:
        super().__init__()
        vocabulary, length = size
        self.table = nn.Embedding(vocabulary + 1, width, padding_idx=0)
        nn.init.normal_(self.table.weight, std=width**-0.5)
        with torch.no_grad():
            self.table.weight[0] = 0
        self.register_buffer("codes", torch.zeros(n_items + 1, length, dtype=torch.long))

    def fill(self, codes: np.ndarray) -> None:
        self.codes.copy_(torch.from_numpy(np.asarray(codes, np.int64)))

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return words (n, T, E) and mask (n, T) of items (n,), cut to their longest text."""
        codes = self.codes[ids]
        codes = codes[:, : max(1, int((codes > 0).sum(1).max()) if len(ids) else 1)]
        return self.table(codes), codes > 0
