"""MMoE: settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .click_settings import SCENARIO_SEAMS, ClickSettings
from .fit import Fit
from .seams import Backbone


@dataclass(frozen=True)
class MMoE(ClickSettings, Backbone):
    """Multi-gate mixture of experts (KDD'18): shared experts, a gate and a tower per scenario.

    A scenario takes the place of the paper's task: each row belongs to one. ``mlp`` are the layers
    of an expert. ``gate_dropout`` leaves experts out at random in training, so that none is left
    without work. Extra columns enter the first layer of every expert, not the gates.
    """

    revision: ClassVar[int] = 2  # ids that training never met are unknown ones
    net: ClassVar[str] = "mmoe_net:MMoENet"
    seams: ClassVar[frozenset[str]] = SCENARIO_SEAMS
    tasks: ClassVar[frozenset[str]] = frozenset({"multi_scenario"})

    max_len: int = 1  # the paper's reads no history; more rows did worse on validation
    mlp: tuple[int, ...] = (128, 64)
    act: str = "relu"  # or "prelu"
    experts: int = 4
    tower: tuple[int, ...] = (32,)
    gate_dropout: float = 0.1
    balance: bool = False  # weigh scenarios alike in the loss, instead of rows
    fit: Fit = Fit(
        lr=2e-3, batch=1024, epochs=40, min_epochs=5, patience=5, weight_decay=0.5, metric="auc"
    )
