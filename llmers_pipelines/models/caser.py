"""Caser: convolutions over the newest items (Tang and Wang, WSDM 2018, arXiv:1809.07426)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .fit import Fit
from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class Caser(Backbone):
    """The newest ``length`` items as an image: horizontal and vertical filters, then a dense layer.

    ``z = relu(W [conv_h; conv_v] + b)``, ``s_j = <[z; p_u], w_j> + b_j`` (eqs. 5 to 11) with an
    output table of its own; every position of a window is trained on its next ``targets`` items.

    Deviations: full cross-entropy instead of a few sampled negatives (``loss="bce"`` has one);
    max-pooling leaves out filter positions that see padding alone, so that padding changes nothing;
    an unknown user has a zero vector, so that the rest still scores (``personal=False`` has no
    user vectors at all).
    """

    revision: ClassVar[int] = 3  # each target counts alike by default (fit.weigh)
    seams: ClassVar[frozenset[str]] = frozenset({
        "item_input", "item_output", "hidden_states", "user_state", "score", "extra_loss",
        "item_table",
    })  # fmt: skip
    tasks: ClassVar[frozenset[str]] = frozenset({"sequential"})
    loader: ClassVar[str] = "sequence"

    dim: int = 64
    length: int = 5  # L, rows of the image
    targets: int = 1  # T, next items that each position is trained on
    horizontal: int = 16  # filters of each height 1 .. length
    vertical: int = 4  # filters over the whole image
    personal: bool = True  # a vector per user
    dropout: float = 0.5
    max_len: int = 50  # rows of a training window; scoring needs ``length``
    table_std: float = 0.1  # of the initial tables
    loss: str = "ce"  # or "ssm", "in_batch", "bce", "bpr", see losses_net.ItemLoss
    negatives: int = 256  # drawn per batch; only for "ssm"
    # without the decay the user vectors learn their histories by heart
    fit: Fit = Fit(lr=1e-3, batch=64, epochs=200, min_epochs=20, patience=10, weight_decay=1.0)

    def build(self, data: TrainingData, seed: int) -> Any:
        from .caser_net import CaserNet
        from .hooks_net import seeded
        from .losses_net import ItemLoss
        from .met import forget, met_of

        with seeded(seed):
            net = CaserNet(
                n_items=data.n_items, n_users=data.n_users if self.personal else 0, dim=self.dim,
                length=self.length, horizontal=self.horizontal, vertical=self.vertical,
                dropout=self.dropout, max_len=self.max_len, table_std=self.table_std,
            )  # fmt: skip
        met = met_of(data)
        forget(net.item_table.weight, met.items)  # it is read as input alone
        if self.loss == "in_batch":  # under other losses all items are negatives
            forget(net.output_table, met.items)
        if net.user_table is not None:
            forget(net.user_table.weight, met.users)
        net.ahead = self.targets
        net.objective = ItemLoss(self.loss, self.negatives, data.train_counts)
        return net
