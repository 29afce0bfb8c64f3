"""NRMS: settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .fit import Fit
from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class NRMS(Backbone):
    """Neural news recommendation with multi-head self-attention (EMNLP'19).

    Title words -> self-attention -> additive attention = news vector; clicked news -> the same =
    user; their inner product, softmax over a click and ``negatives`` of its impression. Deviations:
    words start at random and not from GloVe; attention has query, key and value matrices and is
    scaled, as in released code, where the paper has one bilinear form. The learning
    rate is 1e-3 where the paper has 1e-4, for logs with few impressions, on which 1e-4 needs many
    more epochs; patience is 3 epochs, since a click model overfits within a few. Scores rank the
    items of an impression; as probabilities they are not calibrated.
    """

    seams: ClassVar[frozenset[str]] = frozenset(
        {"item_input", "item_output", "user_state", "score", "extra_loss"}
    )
    tasks: ClassVar[frozenset[str]] = frozenset({"news"})
    loader: ClassVar[str] = "news"

    title: str = "title"  # text field
    word_dim: int = 128
    heads: int = 8
    head: int = 16  # width of one
    attention: int = 128  # of additive attention
    max_len: int = 50  # latest clicked news
    dropout: float = 0.2
    negatives: int = 4
    fit: Fit = Fit(lr=1e-3, batch=128, epochs=20, min_epochs=3, patience=3, metric="auc")

    def build(self, data: TrainingData, seed: int) -> Any:
        """Return the untrained ``NRMSNet``; raises ValueError without labels or titles."""
        from .hooks_net import seeded
        from .news_data import news_shape, size_of, text_of
        from .nrms_net import NRMSNet

        words = text_of(data, self.title, "NRMS")
        shape = news_shape(data) | {"title": size_of(words)}
        with seeded(seed):
            net = NRMSNet(
                shape=shape, max_len=self.max_len, dropout=self.dropout, word_dim=self.word_dim,
                heads=self.heads, head=self.head, attention=self.attention,
            )  # fmt: skip
        net.words.fill(words.codes)
        return net
