"""DeepFM: settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..plan import later
from .click_settings import FIELD_SEAMS
from .fit import Fit
from .seams import Backbone

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class DeepFM(Backbone):
    """DeepFM (IJCAI'17): a factorization machine and an MLP over the same field embeddings.

    Fields are those of the user, of the candidate, and the mean fields of the liked items in the
    history. Extra columns enter the first-order term and the MLP, not the second-order part.
    """

    revision: ClassVar[int] = 2  # ids that training never met are unknown ones
    seams: ClassVar[frozenset[str]] = FIELD_SEAMS
    tasks: ClassVar[frozenset[str]] = frozenset({"ctr", "multi_scenario"})
    loader: ClassVar[str] = "ctr"

    dim: int = 16  # width of one field
    max_len: int = 50  # latest history rows that are read
    item_id: bool = True
    user_id: bool = True  # makes the baseline stronger; turn it off for data split by users
    mlp: tuple[int, ...] = (128, 128, 128)
    act: str = "dice"  # or "prelu", "relu"
    dropout: float = 0.4
    std: float = 0.05  # of the initial field vectors
    fit: Fit = Fit(
        lr=2e-3, batch=1024, epochs=40, min_epochs=5, patience=5, weight_decay=0.5, metric="auc"
    )
    grouped: bool = later(False)  # compute what is of one user or item once; sums in another order

    def build(self, data: TrainingData, seed: int) -> Any:
        """Return the untrained ``DeepFMNet``; raises ValueError where ``data`` has no labels."""
        from .ctr_fields import ctr_fields
        from .deepfm_net import DeepFMNet
        from .hooks_net import seeded

        fields = ctr_fields(data)
        with seeded(seed):
            net = DeepFMNet(
                shape=fields.shape, dim=self.dim, max_len=self.max_len, item_id=self.item_id,
                user_id=self.user_id, mlp=self.mlp, act=self.act, dropout=self.dropout,
                std=self.std, grouped=self.grouped,
            )  # fmt: skip
        net.fill(fields)
        return net
