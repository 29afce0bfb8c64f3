"""NAML: settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .fit import Fit
from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class NAML(Backbone):
    """Neural news recommendation with attentive multi-view learning (IJCAI'19, 1907.05576).

    Title and body go through a CNN and additive attention each, every category through an embedding
    and a dense layer; attention over these views = news vector, attention over clicked news = user;
    softmax over a click and ``negatives`` of its impression. ``body`` "" is the longest other text,
    where there is one. A category that training never met counts as missing. Deviations:
    words start at random and not from GloVe; the learning rate is 1e-3 where public code has 1e-4,
    for logs with few impressions, and patience is 3 epochs, since a click model overfits within a
    few. Scores rank the items of an impression; as probabilities
    they are not calibrated.
    """

    revision: ClassVar[int] = 2  # ids that training never met are unknown ones
    seams: ClassVar[frozenset[str]] = frozenset(
        {"item_input", "item_output", "user_state", "score", "extra_loss"}
    )
    tasks: ClassVar[frozenset[str]] = frozenset({"news"})
    loader: ClassVar[str] = "news"

    title: str = "title"  # text field
    body: str = ""
    word_dim: int = 128
    filters: int = 128
    window: int = 3  # words
    category_dim: int = 32
    attention: int = 128  # of additive attention
    max_len: int = 50  # latest clicked news
    dropout: float = 0.2
    negatives: int = 4
    fit: Fit = Fit(lr=1e-3, batch=128, epochs=20, min_epochs=3, patience=3, metric="auc")

    def build(self, data: TrainingData, seed: int) -> Any:
        """Return the untrained ``NAMLNet``; raises ValueError without labels or titles."""
        from .hooks_net import seeded
        from .met import met_of
        from .naml_net import NAMLNet
        from .news_data import categories_of, news_shape, other_text, size_of, text_of

        names = (self.title, self.body or other_text(data, self.title))
        texts = [text_of(data, name, "NAML") for name in names if name]
        codes = categories_of(data)
        categories = {
            n: [len(data.item_fields[n].vocabulary), c.shape[1]] for n, c in codes.items()
        }
        shape = news_shape(data) | {"texts": [size_of(t) for t in texts], "categories": categories}
        with seeded(seed):
            net = NAMLNet(
                shape=shape, max_len=self.max_len, dropout=self.dropout, word_dim=self.word_dim,
                filters=self.filters, window=self.window, category_dim=self.category_dim,
                attention=self.attention,
            )  # fmt: skip
        for view, words in zip(net.texts, texts, strict=True):
            view.words.fill(words.codes)
        net.categories.fill(codes, categories, met_of(data).items)
        return net
