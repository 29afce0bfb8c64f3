"""Biased matrix factorization of ratings: settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .fit import Fit
from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class BiasedMF(Backbone):
    """``r = mu + b_u + b_i + <p_u, q_i>`` (Koren, Bell and Volinsky, IEEE Computer 2009, eq. 4).

    With ``features`` the fields of users and items have biases and vectors as well, and p_u, q_i,
    b_u, b_i are sums over them and the id, so that new items and users are more than the mean.
    Squared error; predictions are cut to the range of the training ratings. Deviation: decoupled
    weight decay by AdamW over minibatches in place of regularized stochastic steps.

    Usual: width 8 to 100, L2 0.02, rate 0.005, 20 epochs of stochastic steps. Published: RMSE 0.944
    and MAE 0.745 on MovieLens-100k, mean of three random folds (read-me of an early Surprise); RMSE
    by a split in time is higher and does not compare. Mistakes: the mean or the clipping range
    taken over held-out rows; unknown ids that keep a random vector; biases decayed to zero with
    the vectors where users rate on different scales.
    """

    revision: ClassVar[int] = 2  # ids that training never met are unknown ones
    seams: ClassVar[frozenset[str]] = frozenset({"extra_loss", "item_table", "user_table"})
    tasks: ClassVar[frozenset[str]] = frozenset({"rating"})
    loader: ClassVar[str] = "rating"

    dim: int = 8  # wider ones did worse on validation
    features: bool = True
    std: float = 0.05  # of the initial vectors
    dropout: float = 0.0  # of p_u * q_i
    max_len: int = 1  # histories are not read
    fit: Fit = Fit(
        lr=2e-3, batch=1024, epochs=60, min_epochs=5, patience=5, weight_decay=0.5, metric="rmse"
    )

    def build(self, data: TrainingData, seed: int) -> Any:
        """Return the untrained ``BiasedMFNet``; raises ValueError where ``data`` has no ratings."""
        from ..data.training import TRAIN
        from .biased_mf_net import BiasedMFNet
        from .ctr_fields import field_codes
        from .hooks_net import seeded
        from .met import met_of

        if data.rating is None:
            raise ValueError(f"BiasedMF predicts ratings; the log of task {data.task!r} has none")
        given = data.rating[data.split == TRAIN]
        item, item_shape = field_codes("item", data.item_fields, data.n_items)
        user, user_shape = field_codes("user", data.user_fields, data.n_users)
        shape = {
            "n_users": data.n_users, "n_items": data.n_items,
            "user": user_shape if self.features else {},
            "item": item_shape if self.features else {},
            "mean": float(given.mean()), "range": [float(given.min()), float(given.max())],
        }  # fmt: skip
        with seeded(seed):
            net = BiasedMFNet(shape=shape, dim=self.dim, std=self.std, dropout=self.dropout)
        net.fill(item, user, met_of(data))
        return net
