"""GRU4Rec: a recurrent network over the history (Hidasi et al., ICLR 2016, arXiv:1511.06939)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..plan import later
from .fit import Fit
from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class GRU4Rec(Backbone):
    """Gated recurrent units with cross-entropy over all items at every position.

    Deviations from the paper, each because it ranks better: whole histories instead of
    session-parallel batches, full cross-entropy instead of TOP1 over the batch's items, one item
    table for input and output with a linear map from the hidden state to it.
    """

    revision: ClassVar[int] = 2  # each target counts alike by default (fit.weigh)
    seams: ClassVar[frozenset[str]] = frozenset({
        "item_input", "item_output", "hidden_states", "user_state", "score", "extra_loss",
        "item_table",
    })  # fmt: skip
    tasks: ClassVar[frozenset[str]] = frozenset({"sequential"})
    loader: ClassVar[str] = "sequence"

    dim: int = 64
    hidden: int = 128
    layers: int = 1
    dropout: float = 0.5  # of the input, between layers, and of the state before the output map
    max_len: int = 50  # newest items that the model sees
    table_std: float = 0.1  # of the initial item table
    fit: Fit = Fit(lr=1e-3, batch=64, epochs=200, min_epochs=20, patience=10)
    loss: str = later("ce")  # or "ssm", "in_batch", "bce", "bpr", see losses_net.ItemLoss
    negatives: int = later(256)  # drawn per batch; only for "ssm"

    def build(self, data: TrainingData, seed: int) -> Any:
        from .gru4rec_net import GRU4RecNet
        from .hooks_net import seeded
        from .losses_net import ItemLoss

        with seeded(seed):
            net = GRU4RecNet(
                n_items=data.n_items, dim=self.dim, hidden=self.hidden, layers=self.layers,
                dropout=self.dropout, max_len=self.max_len, table_std=self.table_std,
            )  # fmt: skip
        net.objective = ItemLoss(self.loss, self.negatives, data.train_counts)
        return net
