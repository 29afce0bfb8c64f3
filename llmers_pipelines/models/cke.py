"""CKE: collaborative knowledge-base embedding (Zhang et al., KDD 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..plan import Node
from .fit import Fit
from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class CKE(Backbone):
    """``s = <p_u, q_j + v_j>``: v_j is the item's entity, learned by TransR from the triples.

    TransR: ``f = |e_h M_r + r - e_t M_r|^2`` with rows at length 1, and ``-ln sigmoid(f(wrong) -
    f(right))`` where the wrong triple has another tail. Both losses are taken in the same step.
    Items without an entity have v_j = 0.

    Deviations: no text and no image vectors (the paper's other two parts); ``loss`` is a softmax
    (see BPRMF), "bpr" is the paper's. Another backbone's parts fit, but controls would permute the
    links as well, so methods do not choose it by name.
    """

    seams: ClassVar[frozenset[str]] = frozenset({
        "item_output", "user_state", "score", "extra_loss", "pair_loss", "item_table",
        "user_table",
    })  # fmt: skip
    tasks: ClassVar[frozenset[str]] = frozenset({"collaborative", "sequential"})
    loader: ClassVar[str] = "pair"

    kg: Node  # rows head_id, relation, tail_id
    link: Node  # rows item_id, entity_id
    dim: int = 64
    loss: str = "ssm"
    negatives: int = 256  # shared by a batch; only for "ssm"
    temperature: float = 0.2
    l2: float = 1e-4  # on the initial vectors of the batch
    weight: float = 1.0  # of the triples
    triples: int = 1024  # drawn in each step
    table_std: float = 0.1
    fit: Fit = Fit(lr=1e-3, batch=1024, epochs=500, min_epochs=20, patience=20)

    def build(self, data: TrainingData, seed: int) -> Any:
        from .cke_net import CKENet
        from .hooks_net import seeded
        from .knowledge_net import KnowledgeSettings
        from .losses_net import log_share

        with seeded(seed):
            net = CKENet(
                knowledge=KnowledgeSettings(self.kg, self.link, self.weight, self.triples),
                n_users=data.n_users, n_items=data.n_items, dim=self.dim, objective=self.loss,
                temperature=self.temperature, l2=self.l2, table_std=self.table_std,
            )  # fmt: skip
        net.log_q = log_share(data.train_counts) if self.loss == "in_batch" else None
        return net
