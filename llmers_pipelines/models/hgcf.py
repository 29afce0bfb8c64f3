"""Graph convolution in hyperbolic space (HGCF, WWW 2021; HICF, KDD 2022, arXiv:2207.09051)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..plan import PlanError, later
from .fit import Fit
from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class HGCF(Backbone):
    """Users and items are points of a hyperboloid (curvature -1); ``s`` orders as ``-d(u, i)^2``.

    ``t^0 = log_0(x)``, ``t^k = (D + I)^-1 (A + I) t^{k-1}``, point ``exp_0(t^1 + .. + t^layers)``.
    The score is the Lorentz product ``<u, i>_L``, which falls with the distance, so that search by
    inner product is exact. A user is scored from the history given, by the same propagation.

    Loss: the mean of ``[d^2(u, i) - d^2(u, j) + margin w]_+``, j being that of ``negatives`` unseen
    items which is nearest to i; ``w = sigmoid(-(1 - <u, i>_L - u0 - i0) / (u0 i0))`` with
    ``adaptive`` (HICF), else 1 (HGCF, with ``negatives=1``). Points take Riemannian gradient steps
    with ``momentum``; ``fit.weight_decay`` draws them to the origin. Another curvature would scale
    squared distances alone, which is what ``margin`` does. ``fit.lr`` is the rate of these steps;
    weights of parts are no points and learn by AdamW at ``parts_lr``, in the same schedule, unless
    a part has a rate of its own.

    Deviations: means over a batch, not sums (so rates are larger, and decays smaller, by the
    batch); the nearest negative is found by the hyperbolic distance, not by that of the
    coordinates. The papers have 50 negatives and momentum .95; on a dense log the nearest of many
    is a film that the user would have liked, so one is the default (ml100k, one seed, validation
    NDCG@10: 1 negative .195, 3 .179, 50 below .11).
    """

    revision: ClassVar[int] = 2  # ids that training never met are unknown ones
    seams: ClassVar[frozenset[str]] = frozenset(
        {"extra_loss", "item_table", "user_table", "graph_input", "points"}
    )
    tasks: ClassVar[frozenset[str]] = frozenset({"collaborative", "sequential"})
    loader: ClassVar[str] = "pair"
    loss: ClassVar[str] = "hinge"  # what the loader draws for

    dim: int = 50
    layers: int = 3
    margin: float = 1.0
    adaptive: bool = True
    negatives: int = 1
    momentum: float = 0.9
    table_std: float = 0.1  # tangent vectors start uniform in +-table_std
    parts_lr: float = later(1e-3)
    fit: Fit = Fit(
        lr=10.0, batch=2048, epochs=60, min_epochs=30, patience=20, weight_decay=3e-6,
        schedule="cosine",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.parts_lr <= 0:
            raise PlanError(f"HGCF(parts_lr={self.parts_lr}): a learning rate is above 0")
        if self.layers < 1 or self.negatives < 1 or self.margin <= 0 or not 0 <= self.momentum < 1:
            raise PlanError(
                f"HGCF(layers={self.layers}, negatives={self.negatives}, margin={self.margin}, "
                f"momentum={self.momentum}): at least 1 layer and 1 negative, a margin above 0, "
                "momentum in [0, 1)"
            )

    def build(self, data: TrainingData, seed: int) -> Any:
        from .hgcf_net import HyperbolicNet
        from .hooks_net import seeded

        with seeded(seed):
            return HyperbolicNet(
                data, dim=self.dim, layers=self.layers, margin=self.margin,
                adaptive=self.adaptive, momentum=self.momentum, spread=self.table_std,
                parts_lr=self.parts_lr,
            )  # fmt: skip
