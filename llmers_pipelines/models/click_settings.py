"""Settings that the recommenders of click logs share, and how their networks are built."""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..plan import later
from .fit import Fit

if TYPE_CHECKING:
    from ..data.training import TrainingData

CLICK_SEAMS = frozenset({"feature_columns", "extra_loss", "item_table", "user_table"})
FIELD_SEAMS = CLICK_SEAMS | {"trunk"}
SCENARIO_SEAMS = CLICK_SEAMS | {"shared_features", "logit"}


@dataclass(frozen=True)
class ClickSettings:
    """Common part of a frozen dataclass of settings; its network is the class ``net`` names.

    Fields of the network are those of the user, of the candidate, and the mean fields of the liked
    items in the history. The defaults are those of DeepFM, chosen on validation; a model states its
    own where others did better there. Patience is 5 epochs, half of what rankers have: a click
    model overfits its log within an epoch or two, after which validation only falls.
    """

    seams: ClassVar[frozenset[str]] = CLICK_SEAMS
    tasks: ClassVar[frozenset[str]] = frozenset({"ctr", "multi_scenario"})
    loader: ClassVar[str] = "ctr"
    net: ClassVar[str] = ""  # "dcnv2_net:DCNv2Net"

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
        """Return the untrained network; raises ValueError where ``data`` has no labels."""
        from .ctr_fields import ctr_fields
        from .hooks_net import seeded

        module, _, name = self.net.partition(":")
        kind = getattr(importlib.import_module(f"{__package__}.{module}"), name)
        fields = ctr_fields(data)
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "fit"}
        with seeded(seed):
            net = kind(shape=fields.shape, **own)
        net.fill(fields)
        return net
