"""FiBiNET: settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .click_settings import ClickSettings
from .fit import Fit
from .seams import Backbone


@dataclass(frozen=True)
class FiBiNET(ClickSettings, Backbone):
    """FiBiNET (RecSys'19, arXiv:1905.09433): fields weighted by SENET, bilinear pairs, an MLP.

    ``bilinear``: one matrix for "all" pairs, one for "each" field (the first of a pair), or one per
    pair ("interaction"). Extra columns enter the first-order term and the MLP. Deviation: dropout
    and Dice in the MLP, as for the other models here.
    """

    revision: ClassVar[int] = 2  # ids that training never met are unknown ones
    net: ClassVar[str] = "fibinet_net:FiBiNETNet"

    # more weight decay than the others, and a matrix per pair: chosen on validation of ML-100K
    fit: Fit = Fit(
        lr=2e-3, batch=1024, epochs=40, min_epochs=5, patience=5, weight_decay=4.0, metric="auc"
    )
    reduction: int = 3
    bilinear: str = "interaction"  # or "all", "each"
