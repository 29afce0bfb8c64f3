"""DIEN: settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .click_settings import ClickSettings
from .fit import Fit
from .seams import Backbone


@dataclass(frozen=True)
class DIEN(ClickSettings, Backbone):
    """Deep Interest Evolution Network (AAAI'19, arXiv:1809.03672).

    A GRU reads the history; an auxiliary loss of weight ``auxiliary`` asks each state for the next
    item rather than a random other one; softmax attention of the candidate over the states scales
    the update gate of a second GRU (AUGRU), whose last state joins candidate and profile. Extra
    columns enter the MLP. Deviations: the log of ratings is read as it is, a vector of each rating
    beside its item, as in DIN here; negatives are uniform over the catalog.
    """

    revision: ClassVar[int] = 2  # ids that training never met are unknown ones
    net: ClassVar[str] = "dien_net:DIENNet"

    dim: int = 8  # as in DIN
    max_len: int = 30
    mlp: tuple[int, ...] = (200, 80)
    dropout: float = 0.2
    auxiliary: float = 1.0
    fit: Fit = Fit(
        lr=2e-3, batch=512, epochs=20, min_epochs=5, patience=5, weight_decay=0.1,
        schedule="cosine", metric="auc",
    )  # fmt: skip
