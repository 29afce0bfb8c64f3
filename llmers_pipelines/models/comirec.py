"""ComiRec-SA: several vectors per user (Cen et al., KDD 2020, arXiv:2005.09347)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .fit import Fit
from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class ComiRec(Backbone):
    """``interests`` attentions over the history, each a vector; an item takes the best of them.

    ``V = softmax(W_2 tanh(W_1 H)) H`` at every position over what came before; ``s_j = max_k <v_k,
    e_j>``. The state is the interests side by side, (interests * dim).

    ``routing="target"`` is the paper's: in training the interest nearest to the target answers
    alone, so that the others may rank anything at scoring. "best" (default) trains the scores that
    are served, the largest product of each item; its memory is bounded, its time is ``interests``
    times as much.

    Usual: width 64, 4 interests, 10 sampled negatives per row of the batch, histories of 20 (Books)
    or 50 (Taobao), Adam 1e-3, batch 128. Published for SA, users of the test apart from those of
    training, all items ranked: Amazon Books Recall@20 5.489 %, hit rate 11.402 %; Taobao 6.900 %,
    41.549 % (unverified). Such numbers are of new users and do not compare with leave-one-out.
    Mistakes: padding inside the softmax over the history; a mean over interests when scoring, where
    the best counts; interests that collapse to one (the routing above); one vector asked of an
    index, where each interest wants a search of its own.

    Deviations besides: full cross-entropy instead of sampled softmax (``loss="ssm"``); a learned
    bias per distance in each attention instead of position vectors; dropout on the items of a
    history; with ``mapped`` a linear map from an interest to the outputs, without which a mean of
    items ranks those items themselves first; no re-ranking for diversity (its factor 0). No index
    over dot products can serve it: the bundle scores all items.
    """

    revision: ClassVar[int] = 2  # each target counts alike by default (fit.weigh)
    seams: ClassVar[frozenset[str]] = frozenset({
        "item_input", "item_output", "user_state", "score", "extra_loss", "item_table",
    })  # fmt: skip
    tasks: ClassVar[frozenset[str]] = frozenset({"sequential"})
    loader: ClassVar[str] = "sequence"

    dim: int = 64
    interests: int = 4
    inner: int = 256  # width of W_1, four times the width of an item as in the released code
    mapped: bool = True
    routing: str = "best"
    dropout: float = 0.5  # of the item vectors of a history
    max_len: int = 50  # newest items that the model sees
    table_std: float = 0.1  # of the initial item table
    loss: str = "ce"  # or "ssm", "in_batch", "bce", "bpr", see losses_net.ItemLoss
    negatives: int = 256  # drawn per batch; only for "ssm"
    fit: Fit = Fit(lr=1e-3, batch=64, epochs=200, min_epochs=20, patience=10)

    def build(self, data: TrainingData, seed: int) -> Any:
        from .comirec_net import ComiRecNet
        from .hooks_net import seeded
        from .losses_net import ItemLoss

        with seeded(seed):
            net = ComiRecNet(
                n_items=data.n_items, dim=self.dim, interests=self.interests, inner=self.inner,
                mapped=self.mapped, routing=self.routing,
                dropout=self.dropout, max_len=self.max_len, table_std=self.table_std,
            )  # fmt: skip
        net.objective = ItemLoss(self.loss, self.negatives, data.train_counts)
        return net
