"""SASRec: self-attention over the history (Kang and McAuley, ICDM 2018, arXiv:1808.09781)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..plan import PlanError, later
from .fit import Fit
from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class SASRec(Backbone):
    """Causal transformer with cross-entropy over all items at every position.

    Deviations from the paper, each because it ranks better: full cross-entropy instead of one
    sampled negative (it decides more than the architecture); norms after the residuals and one on
    the input, no scaling by sqrt(dim); and ``positions="distance"``, a learned bias per distance in
    the attention. ``"right"`` has the paper's position vectors, counted from the newest item.
    ``supervise="last"`` trains one target per sample, after a prefix of a history (every prefix is
    a sample), which parts need that mix positions. ``head="cosine"`` scores by cosine over ``tau``.
    """

    revision: ClassVar[int] = 2  # each target counts alike by default (fit.weigh)
    seams: ClassVar[frozenset[str]] = frozenset({
        "item_input", "item_output", "history", "hidden_states", "user_state", "score",
        "extra_loss", "item_table", "layer_states",
    })  # fmt: skip
    tasks: ClassVar[frozenset[str]] = frozenset({"sequential"})
    loader: ClassVar[str] = "sequence"

    dim: int = 64
    layers: int = 1
    heads: int = 1
    inner: int = 256  # width of the feed-forward layer
    dropout: float = 0.5
    max_len: int = 50  # newest items that the model sees
    table_std: float = 0.1  # of the initial item table
    positions: str = "distance"
    fit: Fit = Fit(lr=1e-3, batch=64, epochs=200, min_epochs=20, patience=10)
    loss: str = later("ce")  # or "ssm", "in_batch", "bce", "bpr", see losses_net.ItemLoss
    negatives: int = later(256)  # drawn per batch; only for "ssm"
    supervise: str = later("all")  # positions of a window with a target; or "last"
    head: str = later("dot")  # or "cosine"
    tau: float = later(0.07)  # only for "cosine"

    def __post_init__(self) -> None:
        if self.supervise not in ("all", "last"):
            raise PlanError(f"SASRec: supervise is {self.supervise!r}; use 'all' or 'last'")
        if self.head not in ("dot", "cosine"):
            raise PlanError(f"SASRec: head is {self.head!r}; use 'dot' or 'cosine'")
        if self.tau <= 0:
            raise PlanError(f"SASRec: tau is {self.tau}; it is above 0")

    def build(self, data: TrainingData, seed: int) -> Any:
        from .hooks_net import seeded
        from .losses_net import ItemLoss
        from .sasrec_net import SASRecNet

        with seeded(seed):
            net = SASRecNet(
                n_items=data.n_items, dim=self.dim, layers=self.layers, heads=self.heads,
                inner=self.inner, dropout=self.dropout, max_len=self.max_len,
                table_std=self.table_std, positions=self.positions,
                tau=self.tau if self.head == "cosine" else 0.0,
            )  # fmt: skip
        net.objective = ItemLoss(self.loss, self.negatives, data.train_counts)
        return net
