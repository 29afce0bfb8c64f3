"""CFKG: users, items and facts in one space (Ai et al., Algorithms 2018, arXiv:1805.03352)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..plan import Node
from .fit import Fit
from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class CFKG(Backbone):
    """``s = <p_u + r, q_j>``: to choose an item is one more relation r of a graph of facts.

    Items are entities: a triple (h, r', t) is learned by ``-ln sigmoid(<e_h + r', e_t>) - ln
    sigmoid(-<e_h + r', e_wrong>)`` with an entity drawn at random as the wrong tail (eqs. 2 to 5),
    in the same step as the pairs.

    Deviation: ``loss`` of the pairs is a softmax (see BPRMF); "bce" is the paper's negative
    sampling. Another backbone's parts fit, but controls would permute the links as well, so
    methods do not choose it by name.
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
        from .cfkg_net import CFKGNet
        from .hooks_net import seeded
        from .knowledge_net import KnowledgeSettings
        from .losses_net import log_share

        with seeded(seed):
            net = CFKGNet(
                knowledge=KnowledgeSettings(self.kg, self.link, self.weight, self.triples),
                n_users=data.n_users, n_items=data.n_items, dim=self.dim, objective=self.loss,
                temperature=self.temperature, l2=self.l2, table_std=self.table_std,
            )  # fmt: skip
        net.log_q = log_share(data.train_counts) if self.loss == "in_batch" else None
        return net
