"""SR-GNN: a session as a graph of its items (Wu et al., AAAI 2019, arXiv:1811.00855)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .fit import Fit
from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class SRGNN(Backbone):
    """Gated graph steps on the directed graph of the newest ``max_len`` items, then attention.

    Edges weigh their occurrences over the out-degree of their start, and in the reverse direction
    over the in-degree of their end; ``steps`` gated updates; the last click is the query of the
    attention over the clicks; ``s_j = <W [v_last ; s_g], e_j>`` (eqs. 1 to 7). Every prefix of a
    window is a session of its own in training, so cost grows with ``max_len`` squared. The model is
    made for sessions: of a long history it sees the newest items alone.

    Deviations: dropout on items (0 is the paper's), initial tables of standard deviation
    ``table_std`` instead of uniform ones, a constant rate instead of a tenth every third epoch. No
    ``hidden_states`` seam: a graph is made from ids, not from item vectors.
    """

    revision: ClassVar[int] = 2  # each target counts alike by default (fit.weigh)
    seams: ClassVar[frozenset[str]] = frozenset({
        "item_input", "item_output", "user_state", "score", "extra_loss", "item_table",
    })  # fmt: skip
    tasks: ClassVar[frozenset[str]] = frozenset({"sequential"})
    loader: ClassVar[str] = "sequence"

    dim: int = 64
    steps: int = 1
    dropout: float = 0.5  # of the item vectors
    max_len: int = 20  # newest items that the model sees
    table_std: float = 0.1  # of the initial item table
    loss: str = "ce"  # or "ssm", "in_batch", "bce", "bpr", see losses_net.ItemLoss
    negatives: int = 256  # drawn per batch; only for "ssm"
    fit: Fit = Fit(lr=1e-3, batch=64, epochs=200, min_epochs=20, patience=10, weight_decay=1e-5)

    def build(self, data: TrainingData, seed: int) -> Any:
        from .hooks_net import seeded
        from .losses_net import ItemLoss
        from .srgnn_net import SRGNNNet

        with seeded(seed):
            net = SRGNNNet(
                n_items=data.n_items, dim=self.dim, steps=self.steps, dropout=self.dropout,
                max_len=self.max_len, table_std=self.table_std,
            )  # fmt: skip
        net.objective = ItemLoss(self.loss, self.negatives, data.train_counts)
        return net
