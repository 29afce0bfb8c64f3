"""STAR: settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .click_settings import SCENARIO_SEAMS, ClickSettings
from .fit import Fit
from .seams import Backbone


@dataclass(frozen=True)
class STAR(ClickSettings, Backbone):
    """Star topology adaptive recommender (CIKM'21, arXiv:2101.11427): shared times own weights.

    Partitioned normalization, a fully connected net whose weights are the products of shared and
    scenario weights, and an auxiliary net that reads the scenario. Scenario factors start at 1 and
    are stored as their difference from it, so that weight decay draws them to the shared net. An
    unknown scenario has the mean of all logits by training shares. Extra columns enter the first
    layer with weights that all scenarios share, without normalization.
    """

    revision: ClassVar[int] = 2  # ids that training never met are unknown ones
    net: ClassVar[str] = "star_net:STARNet"
    seams: ClassVar[frozenset[str]] = SCENARIO_SEAMS
    tasks: ClassVar[frozenset[str]] = frozenset({"multi_scenario"})

    max_len: int = 1  # the paper's reads no history; more rows did worse on validation
    act: str = "relu"  # or "prelu"
    auxiliary: tuple[int, ...] = (32,)  # layers of the auxiliary net
    balance: bool = False  # weigh scenarios alike in the loss, instead of rows
    fit: Fit = Fit(
        lr=2e-3, batch=1024, epochs=40, min_epochs=5, patience=5, weight_decay=0.5, metric="auc"
    )
