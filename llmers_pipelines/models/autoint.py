"""AutoInt: settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .click_settings import FIELD_SEAMS, ClickSettings
from .seams import Backbone


@dataclass(frozen=True)
class AutoInt(ClickSettings, Backbone):
    """AutoInt+ (CIKM'19, arXiv:1810.11921): self-attention over fields, residual, and an MLP.

    Attention is not scaled by sqrt(d), as in the paper; ``scaled`` turns that on. Extra columns
    enter the first-order term and the MLP, not the attention. Deviations: the first-order term of
    the other models here, their dropout and Dice in the MLP.
    """

    seams: ClassVar[frozenset[str]] = FIELD_SEAMS
    net: ClassVar[str] = "autoint_net:AutoIntNet"
    revision: ClassVar[int] = 3  # ids that training never met are unknown ones

    layers: int = 3
    heads: int = 2
    attention: int = 32  # width of all heads together
    attention_dropout: float = 0.0
    scaled: bool = False
    residual: bool = True
