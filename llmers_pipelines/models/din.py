"""DIN: settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .fit import Fit
from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class DIN(Backbone):
    """Deep Interest Network (KDD'18): the history is weighted by what the candidate is.

    Attention over [h; c; h - c; h * c] without softmax, padding masked, an empty history is the
    zero vector. Deviations: the weighted history is averaged (``pool="mean"``), which did better
    than the paper's sum where the history is a log of ratings; the attention layer is ReLU instead
    of Dice, which is cheaper and made no clear difference; in place of the paper's mini-batch-aware
    L2 (rows of the batch alone, each by one over how often it occurs) AdamW's decoupled weight
    decay draws all weights to zero at every step, rows outside of the batch included. Patience is 5
    evaluations: a click model overfits its log within an epoch or two. The user's id is a field by
    default, since it makes the baseline stronger; turn it off for data that is split by users.
    """

    revision: ClassVar[int] = 2  # ids that training never met are unknown ones
    seams: ClassVar[frozenset[str]] = frozenset(
        {"feature_columns", "extra_loss", "item_table", "user_table"}
    )
    tasks: ClassVar[frozenset[str]] = frozenset({"ctr", "multi_scenario"})
    loader: ClassVar[str] = "ctr"

    dim: int = 8  # width of one field; wider ones learn the log by heart
    max_len: int = 30  # latest history rows that are read
    item_id: bool = True
    user_id: bool = True
    attention: int = 36  # hidden units of the attention layer
    mlp: tuple[int, ...] = (200, 80)
    act: str = "dice"  # or "prelu", "relu"
    dropout: float = 0.2
    std: float = 0.05  # of the initial field vectors
    pool: str = "mean"  # or "sum", as in the paper
    fit: Fit = Fit(
        lr=2e-3, batch=512, epochs=20, min_epochs=5, patience=5, weight_decay=0.1,
        schedule="cosine", metric="auc",
    )  # fmt: skip

    def build(self, data: TrainingData, seed: int) -> Any:
        """Return the untrained ``DINNet``; raises ValueError where ``data`` has no labels."""
        from .ctr_fields import ctr_fields
        from .din_net import DINNet
        from .hooks_net import seeded

        fields = ctr_fields(data)
        with seeded(seed):
            net = DINNet(
                shape=fields.shape, dim=self.dim, max_len=self.max_len, item_id=self.item_id,
                user_id=self.user_id, attention=self.attention, mlp=self.mlp, act=self.act,
                dropout=self.dropout, std=self.std, pool=self.pool,
            )  # fmt: skip
        net.fill(fields)
        return net
