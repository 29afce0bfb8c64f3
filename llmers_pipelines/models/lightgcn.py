"""LightGCN: propagation on the user-item graph (He et al., SIGIR 2020, arXiv:2002.02126)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .fit import Fit
from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class LightGCN(Backbone):
    """``E = mean_{k=0..layers} (D^-1/2 A D^-1/2)^k E^0`` on the training edges, ``s = <e_u, e_j>``.

    ``loss="bpr"`` is the paper's; ``"ssm"`` (default) a softmax over the positive and ``negatives``
    items shared by the batch, on cosines divided by ``temperature``; for "bce", "ce" and "in_batch"
    see ``FactorNet``. Users are scored from the
    history given at that time, by the same propagation (see ``FactorNet``).
    """

    seams: ClassVar[frozenset[str]] = frozenset({
        "item_output", "user_state", "score", "extra_loss", "pair_loss", "item_table",
        "user_table", "graph_input",
    })  # fmt: skip
    tasks: ClassVar[frozenset[str]] = frozenset({"collaborative", "sequential"})
    revision: ClassVar[int] = 3  # ids that training never met are unknown ones
    loader: ClassVar[str] = "pair"

    dim: int = 64
    layers: int = 3
    loss: str = "ssm"
    negatives: int = 256  # shared by a batch; only for "ssm"
    temperature: float = 0.2
    l2: float = 1e-4  # on E^0 of the batch, eq. 15 of the paper
    table_std: float = 0.1
    fit: Fit = Fit(lr=1e-3, batch=1024, epochs=500, min_epochs=20, patience=20)

    def build(self, data: TrainingData, seed: int) -> Any:
        from .factor_net import FactorNet
        from .graph_net import training_graph

        net = FactorNet.of(self, data, seed, layers=self.layers)
        net.graph = training_graph(data)
        return net
