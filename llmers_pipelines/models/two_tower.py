"""Text two-tower: settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .fit import Fit
from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData

LOSSES = ("full", "in_batch")


@dataclass(frozen=True)
class TwoTower(Backbone):
    """Two towers of words: a user's history and an item meet in an inner product.

    Item tower: the mean word vector of each text, joined, an MLP, and with ``item_id`` a vector of
    the item itself. User tower: an MLP over the mean of the item vectors so far and the newest one,
    at every position. Both ends have length 1 (``temperature`` 0: plain inner products). ``full``
    is cross-entropy over the catalog; ``in_batch`` over the batch's targets, each row's a candidate
    of its own with the log share of its item's training rows taken away (Yi et al., RecSys'19; see
    ``losses_net.ItemLoss``), for catalogs too large for that. An item
    that training never met is retrieved by its words. The history stands for the query.

    Usual: MLPs of 128 to 1024, length 1 with a temperature of 0.05 to 0.1, in-batch negatives by
    thousands, Adam or Adagrad. Published: Yi et al. report on a private log of YouTube and on links
    of Wikipedia; there is no cell to reproduce here. Mistakes: in-batch negatives without the log
    share, which buries popular items; a temperature of 1 at length 1, under which the softmax is
    nearly flat; a positive that is another row's negative; a vocabulary built on held-out items.
    """

    revision: ClassVar[int] = 4  # each target counts alike by default (fit.weigh)
    seams: ClassVar[frozenset[str]] = frozenset(
        {"item_input", "item_output", "hidden_states", "user_state", "score", "extra_loss"}
    )
    tasks: ClassVar[frozenset[str]] = frozenset({"retrieval"})
    loader: ClassVar[str] = "sequence"

    texts: tuple[str, ...] = ()  # text fields; () = all
    word_dim: int = 64
    dim: int = 64
    mlp: tuple[int, ...] = (128,)
    item_id: bool = False
    dropout: float = 0.2
    temperature: float = 0.1
    max_len: int = 50
    loss: str = "full"  # or "in_batch"
    fit: Fit = Fit(lr=1e-3, batch=128, epochs=200, patience=10, weight_decay=0.0)

    def build(self, data: TrainingData, seed: int) -> Any:
        """Return the untrained ``TwoTowerNet``; raises ValueError where items have no texts."""
        from .hooks_net import seeded
        from .losses_net import ItemLoss
        from .met import forget, met_of
        from .news_data import size_of, text_of
        from .two_tower_net import TwoTowerNet

        names = self.texts or tuple(sorted(data.item_texts)) or ("title",)
        texts = [text_of(data, name, "TwoTower") for name in names]
        with seeded(seed):
            net = TwoTowerNet(
                n_items=data.n_items, words=[size_of(t) for t in texts], word_dim=self.word_dim,
                dim=self.dim, mlp=list(self.mlp), item_id=self.item_id, dropout=self.dropout,
                temperature=self.temperature, max_len=self.max_len, loss=self.loss,
            )  # fmt: skip
        net.fill([t.codes for t in texts])
        if self.loss == "in_batch":  # else all items are negatives
            net.objective = ItemLoss("in_batch", counts=data.train_counts)
            forget(net.item_table.weight, met_of(data).items)
        return net
