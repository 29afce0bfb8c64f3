"""Matrix factorization for ranking (Rendle et al., UAI 2009, arXiv:1205.2618)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..plan import PlanError, later
from .fit import Fit
from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData

DRAWS = ("uniform", "popularity")


@dataclass(frozen=True)
class BPRMF(Backbone):
    """One vector per user and item; ``s = <p_u, q_j>``.

    ``loss="bpr"`` is the paper's: one negative per pair, never an item of the user. It is uniform
    as in the paper, or with ``draw="popularity"`` as likely as its share of the training pairs
    (libraries that draw another interaction skip a pair whose draw was met; here it is drawn anew).
    ``"ssm"`` is a softmax over the positive and ``negatives`` items shared by the batch, on cosines
    divided by ``temperature`` (Wu et al., arXiv:2201.02327); it ranks better
    (docs/performance.md). Its draws are uniform, so logQ would be one constant and is left out,
    and an item of the user's own may be among them. "bce" has one negative as well; "ce" is the
    softmax over all items, "in_batch" over the batch's positives with logQ (see ``FactorNet``).
    """

    revision: ClassVar[int] = 2  # ids that training never met are unknown ones
    seams: ClassVar[frozenset[str]] = frozenset({
        "item_output", "user_state", "score", "extra_loss", "pair_loss", "item_table",
        "user_table",
    })  # fmt: skip
    tasks: ClassVar[frozenset[str]] = frozenset({"collaborative", "sequential"})
    loader: ClassVar[str] = "pair"

    dim: int = 64
    loss: str = "ssm"
    draw: str = later("uniform")  # of the negative; or "popularity"; only for "bpr" and "bce"
    negatives: int = 256  # shared by a batch; only for "ssm"
    temperature: float = 0.15
    l2: float = 1e-4  # on the initial vectors of the batch
    table_std: float = 0.1
    fit: Fit = Fit(lr=1e-3, batch=1024, epochs=500, min_epochs=20, patience=20)

    def __post_init__(self) -> None:
        if self.draw not in DRAWS:
            raise PlanError(f"draw of BPRMF is {self.draw!r}; use one of {', '.join(DRAWS)}")
        if self.draw != "uniform" and self.loss not in ("bpr", "bce"):
            raise PlanError(
                f"BPRMF draws by {self.draw} one negative per pair, and its loss is "
                f"{self.loss!r}; set loss to 'bpr' or 'bce', or draw to 'uniform'"
            )

    def build(self, data: TrainingData, seed: int) -> Any:
        from .factor_net import FactorNet

        return FactorNet.of(self, data, seed)
