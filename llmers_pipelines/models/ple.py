"""PLE: settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .click_settings import SCENARIO_SEAMS, ClickSettings
from .fit import Fit
from .seams import Backbone


@dataclass(frozen=True)
class PLE(ClickSettings, Backbone):
    """Progressive layered extraction (RecSys'20): experts of each scenario beside shared ones.

    A scenario takes the place of the paper's task: each row belongs to one. Each of ``levels`` has
    ``private`` experts per scenario and ``shared`` ones, all of the layers ``mlp``; a scenario's
    gate mixes its own and the shared ones, the shared gate mixes all and is absent from the last
    level. Extra columns enter the first layer of the first level's experts, not the gates.
    """

    revision: ClassVar[int] = 2  # ids that training never met are unknown ones
    net: ClassVar[str] = "ple_net:PLENet"
    seams: ClassVar[frozenset[str]] = SCENARIO_SEAMS
    tasks: ClassVar[frozenset[str]] = frozenset({"multi_scenario"})

    max_len: int = 1  # the paper's reads no history; more rows did worse on validation
    mlp: tuple[int, ...] = (128, 64)
    act: str = "relu"  # or "prelu"
    levels: int = 1
    private: int = 2
    shared: int = 2
    tower: tuple[int, ...] = (32,)
    gate_dropout: float = 0.1
    balance: bool = False  # weigh scenarios alike in the loss, instead of rows
    fit: Fit = Fit(
        lr=2e-3, batch=1024, epochs=40, min_epochs=5, patience=5, weight_decay=0.5, metric="auc"
    )
