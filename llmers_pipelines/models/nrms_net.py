"""Network of NRMS (torch)."""

from __future__ import annotations

from torch import Tensor

from .news_net import AdditiveAttention, NewsNet, SelfAttention, Words


class NRMSNet(NewsNet):
    """News and users by self-attention, then additive attention (NRMS, sections 2.1 and 2.2)."""

    title = "NRMS"

    def make(self, *, encoder: bool, word_dim: int, heads: int, head: int, attention: int) -> int:
        width = heads * head
        if encoder:
            self.words = Words(self.n_items, self.config["shape"]["title"], word_dim)
            self.word_attention = SelfAttention(word_dim, heads, head)
            self.word_pool = AdditiveAttention(width, attention)
        self.news_attention = SelfAttention(width, heads, head)
        self.news_pool = AdditiveAttention(width, attention)
        return width

    def news(self, ids: Tensor) -> Tensor:
        words, mask = self.words(ids)
        h = self.dropped(self.word_attention(self.dropped(words), mask))
        return self.word_pool(h, mask)

    def user(self, clicked: Tensor, mask: Tensor) -> Tensor:
        h = self.dropped(self.news_attention(self.dropped(clicked), mask))
        return self.news_pool(h, mask)
