"""SGL: LightGCN with contrasted views of the graph (Wu et al., SIGIR 2021, arXiv:2010.10783)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .fit import Fit
from .lightgcn import LightGCN

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class SGL(LightGCN):
    """``L = L_main + contrast (InfoNCE(users) + InfoNCE(items)) + L2`` over two thinned graphs.

    Two graphs are drawn in every epoch and normalised after what is dropped is gone: ``augment``
    "edge" drops a share ``drop`` of the edges, "node" of the nodes with their edges, "walk" of the
    edges anew in each layer. InfoNCE compares the cosines, over ``tau``, of a node's two views with
    those of the other nodes of the same kind in the batch (eq. 10; the whole catalog would be a
    matter of memory), as a mean, not a sum.

    Deviation: ``loss`` is LightGCN's default here, a softmax; "bpr" is the paper's.
    """

    revision: ClassVar[int] = 3  # ids that training never met are unknown ones
    loader: ClassVar[str] = "pair"

    augment: str = "edge"
    drop: float = 0.1
    tau: float = 0.2
    contrast: float = 0.1
    fit: Fit = Fit(lr=1e-3, batch=1024, epochs=500, min_epochs=20, patience=20)

    def build(self, data: TrainingData, seed: int) -> Any:
        from .hooks_net import Stream
        from .sgl_net import ContrastHook

        net = super().build(data, seed)
        hook = ContrastHook(data, self.augment, self.drop, self.tau, self.contrast, seed)
        hook.stream = Stream(seed, 0, 1)
        net.hooks.append(hook)
        return net
