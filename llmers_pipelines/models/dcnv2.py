"""DCN-V2: settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .click_settings import FIELD_SEAMS, ClickSettings
from .seams import Backbone


@dataclass(frozen=True)
class DCNv2(ClickSettings, Backbone):
    """DCN-V2 (WWW'21, arXiv:2008.13535): explicit crosses ``x_0 * (W x + b) + x``, and an MLP.

    ``rank`` 0 is the full matrix of equation 1; above 0, each of ``experts`` factors it as
    ``U g(C g(V^T x))`` and a softmax gate mixes them (equations 3 to 5, g = tanh). ``parallel``
    reads the crosses and the MLP side by side, ``stacked`` the MLP after the crosses. Extra columns
    enter the MLP alone. Deviation: dropout and Dice in the MLP, as for the other models here.
    """

    revision: ClassVar[int] = 2  # ids that training never met are unknown ones
    seams: ClassVar[frozenset[str]] = FIELD_SEAMS
    net: ClassVar[str] = "dcnv2_net:DCNv2Net"

    crosses: int = 3
    rank: int = 0
    experts: int = 1
    structure: str = "parallel"  # or "stacked"
