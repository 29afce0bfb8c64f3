"""DLRM: settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .click_settings import ClickSettings
from .seams import Backbone


@dataclass(frozen=True)
class DLRM(ClickSettings, Backbone):
    """DLRM (Naumov et al. 2019, arXiv:1906.00091): dense features and fields meet in dot products.

    The dense features go through ``bottom`` to the width of a field; the inner products of all
    pairs of vectors, joined with that output, enter the top MLP ``mlp``. Dense features of a click
    log: log(1 + rows of the history), log(1 + liked rows), share of liked rows. Extra columns enter
    the top MLP. Deviation: dropout and Dice in the top MLP, as for the other models here.

    Usual: width 16, bottom 512-256-64, top 512-256, plain SGD at 0.1 on batches of 128 (script for
    Criteo Kaggle in the authors' repository). Published: the paper has curves of accuracy on Criteo
    Kaggle and no table; AUC 0.8025 on Criteo Terabyte is the target that MLPerf set (unverified).
    Mistakes: each product twice, or with itself by accident; raw counts as dense features; a bottom
    that does not end at the width of a field; its output left out of the top.
    """

    revision: ClassVar[int] = 2  # ids that training never met are unknown ones
    net: ClassVar[str] = "dlrm_net:DLRMNet"

    dim: int = 8  # did better on validation than the 16 of the others
    bottom: tuple[int, ...] = (64,)  # hidden layers before the one of width ``dim``
    itself: bool = False  # also the product of each vector with itself
