"""xDeepFM: settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .click_settings import ClickSettings
from .seams import Backbone


@dataclass(frozen=True)
class XDeepFM(ClickSettings, Backbone):
    """xDeepFM (KDD'18, arXiv:1803.05170): a compressed interaction network, linear part and MLP.

    The layers of the CIN are linear, as in the paper. ``split_half`` hands one half of each layer's
    maps to the next one and sums up the other, as the released code can; off, all maps do both, as
    in equation 6. Extra columns enter the first-order term and the MLP. Deviation: dropout and Dice
    in the MLP, as for the other models here.
    """

    revision: ClassVar[int] = 2  # ids that training never met are unknown ones
    net: ClassVar[str] = "xdeepfm_net:XDeepFMNet"

    cin: tuple[int, ...] = (32, 32)  # maps per layer; 100 to 200 in the paper, where logs are large
    split_half: bool = False
