"""HSTU: pointwise attention with gates (Zhai et al., ICML 2024, arXiv:2402.17152)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..plan import later
from .fit import Fit
from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class HSTU(Backbone):
    """Blocks ``U, V, Q, K = silu(W norm(X))``, ``X + W_o (norm(A V) * U) + b`` (eqs. 1 to 3).

    ``A = silu(Q K^T + r) / max_len`` where a position may look, 0 elsewhere: no softmax, so how
    much of a kind there is in a history counts. r is a learned bias per distance and head. States
    and items are compared by cosine over ``temperature``.

    ``time_buckets`` > 0 adds a learned bias per head and logarithm of the time between two items of
    the history (buckets of a factor 1.35, the last one open). The time of the item to predict is
    not read: the released code does so, but nobody knows it when a list is made. It needs a log
    with a clock, and it is off by default, because the histories of a bundle have none: such a
    model is evaluated and not served.

    Deviations: full cross-entropy instead of sampled negatives (``loss="ssm"``); positions by
    distance are in the attention alone unless ``places``.
    """

    revision: ClassVar[int] = 2  # each target counts alike by default (fit.weigh)
    seams: ClassVar[frozenset[str]] = frozenset({
        "item_input", "item_output", "hidden_states", "user_state", "score", "extra_loss",
        "item_table",
    })  # fmt: skip
    tasks: ClassVar[frozenset[str]] = frozenset({"sequential"})
    loader: ClassVar[str] = "sequence"

    dim: int = 64
    layers: int = 2
    heads: int = 1
    inner: int = 64  # width of V and U, all heads together
    attention: int = 64  # width of Q and K, all heads together
    dropout: float = 0.2
    places: bool = True  # position vectors on the input as well, counted from the newest item
    temperature: float = 0.05
    max_len: int = 50  # newest items that the model sees
    table_std: float = 0.02  # of the initial item table
    time_buckets: int = later(0)  # 0: no bias by time; 64 reach beyond five years
    loss: str = "ce"  # or "ssm", "in_batch", "bce", "bpr", see losses_net.ItemLoss
    negatives: int = 256  # drawn per batch; only for "ssm"
    fit: Fit = Fit(lr=1e-3, batch=64, epochs=200, min_epochs=20, patience=10)

    def build(self, data: TrainingData, seed: int) -> Any:
        from .hooks_net import seeded
        from .hstu_net import HSTUNet
        from .losses_net import ItemLoss

        if self.time_buckets and data.info.get("clock", "seconds") != "seconds":
            raise ValueError(
                f"HSTU with time_buckets = {self.time_buckets} needs timestamps, and the clock of "
                f"this log is {data.info['clock']!r}; map a timestamp or set time_buckets to 0"
            )
        with seeded(seed):
            net = HSTUNet(
                n_items=data.n_items, dim=self.dim, layers=self.layers, heads=self.heads,
                inner=self.inner, attention=self.attention, dropout=self.dropout,
                places=self.places, temperature=self.temperature, max_len=self.max_len,
                table_std=self.table_std, time_buckets=self.time_buckets,
            )  # fmt: skip
        net.objective = ItemLoss(self.loss, self.negatives, data.train_counts)
        return net
