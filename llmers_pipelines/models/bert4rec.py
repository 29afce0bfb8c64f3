"""BERT4Rec: a history with gaps, read both ways (Sun et al., CIKM 2019, arXiv:1904.06690)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .fit import Fit
from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class BERT4Rec(Backbone):
    """Bidirectional transformer that fills masked positions; scored at a mask after the history.

    Training masks each item of a window with probability ``mask`` and, in a share ``last`` of the
    windows, the newest alone, as scoring does (half of them on ML-100K: a quarter less, see
    docs/performance.md). With an appended mask the oldest item of a full window makes room. The
    output is ``s_j = <gelu(W h + b), e_j> + b_j`` after a norm (sec. 3.5), with the input table. It
    learns slowly: the patience is long on purpose.

    Deviations: ``positions="distance"``, a learned bias per signed distance in the attention, which
    ranks better; ``"right"`` has the paper's position vectors, counted from the newest one. Windows
    do not overlap and are masked anew in each epoch, instead of ten stored copies. No
    ``hidden_states`` seam: states stand at masked positions, not at what follows.
    """

    revision: ClassVar[int] = 3  # windows no longer share a row, which was masked in both
    seams: ClassVar[frozenset[str]] = frozenset({
        "item_input", "item_output", "user_state", "score", "extra_loss", "item_table",
    })  # fmt: skip
    tasks: ClassVar[frozenset[str]] = frozenset({"sequential"})
    loader: ClassVar[str] = "cloze"

    dim: int = 64
    layers: int = 2
    heads: int = 2
    inner: int = 256  # width of the feed-forward layer
    dropout: float = 0.2
    mask: float = 0.2  # share of masked positions; sparser data wants more
    last: float = 0.0  # share of windows in which only the newest item is masked
    max_len: int = 50  # positions, the mask included
    table_std: float = 0.1  # of the initial item table
    positions: str = "distance"  # or "right"
    loss: str = "ce"  # or "ssm", "in_batch", "bce", "bpr", see losses_net.ItemLoss
    negatives: int = 256  # drawn per batch; only for "ssm"
    fit: Fit = Fit(lr=1e-3, batch=64, epochs=600, min_epochs=100, patience=40)

    def build(self, data: TrainingData, seed: int) -> Any:
        from .bert4rec_net import BERT4RecNet
        from .hooks_net import seeded
        from .losses_net import ItemLoss

        with seeded(seed):
            net = BERT4RecNet(
                n_items=data.n_items, dim=self.dim, layers=self.layers, heads=self.heads,
                inner=self.inner, dropout=self.dropout, max_len=self.max_len,
                table_std=self.table_std, positions=self.positions,
            )  # fmt: skip
        net.objective = ItemLoss(self.loss, self.negatives, data.train_counts)
        return net
