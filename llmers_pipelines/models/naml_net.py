"""Network of NAML (torch)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .ctr_net import EntityFields
from .news_net import AdditiveAttention, NewsNet, Words, pooled


class TextView(nn.Module):
    """Words -> convolution over ``window`` words, ReLU -> additive attention (NAML, eq. 1 to 3)."""

    def __init__(
        self, n_items: int, size: Sequence[int], width: int, filters: int, window: int, inner: int
    ) -> None:
        super().__init__()
        if window % 2 == 0:
            raise ValueError(f"NAML: window={window} has no middle word; use an odd number")
        self.words = Words(n_items, size, width)
        self.convolve = nn.Conv1d(width, filters, window, padding=window // 2)
        self.pool = AdditiveAttention(filters, inner)

    def forward(self, ids: Tensor, dropped: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Return vectors (n, filters) and which items have words (n,)."""
        words, mask = self.words(ids)
        h = torch.relu(self.convolve(dropped(words).mT)).mT
        return self.pool(dropped(h), mask), mask.any(1)


class NAMLNet(NewsNet):
    """Views of a news, attention over the views, attention over clicked news."""

    title = "NAML"

    def make(
        self, *, encoder: bool, word_dim: int, filters: int, window: int, category_dim: int,
        attention: int,
    ) -> int:  # fmt: skip
        if encoder:
            shape = self.config["shape"]
            self.texts = nn.ModuleList(
                TextView(self.n_items, size, word_dim, filters, window, attention)
                for size in shape["texts"]
            )
            self.categories = EntityFields(
                self.n_items, shape["categories"], category_dim, False, category_dim**-0.5
            )
            self.dense = nn.ModuleList(
                nn.Linear(category_dim, filters) for _ in shape["categories"]
            )
            views = len(self.texts) + len(self.dense)
            # each view has a projection and a query of its own
            self.view_attention = nn.ModuleList(
                AdditiveAttention(filters, attention) for _ in range(views)
            )
        self.news_pool = AdditiveAttention(filters, attention)
        return filters

    def views(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return (n, views, D) and which of them an item has, bool (n, views)."""
        vectors, there = map(
            list, zip(*(view(ids, self.dropped) for view in self.texts), strict=True)
        )
        e = self.categories(ids)
        vectors += [torch.relu(layer(e[:, f])) for f, layer in enumerate(self.dense)]
        there += [torch.ones_like(there[0])] * len(self.dense)
        return torch.stack(vectors, 1), torch.stack(there, 1)

    def news(self, ids: Tensor) -> Tensor:
        vectors, there = self.views(ids)
        scores = [
            attention.query(torch.tanh(attention.project(vectors[:, v])))
            for v, attention in enumerate(self.view_attention)
        ]
        return pooled(torch.cat(scores, 1), vectors, there)

    def user(self, clicked: Tensor, mask: Tensor) -> Tensor:
        return self.news_pool(self.dropped(clicked), mask)
